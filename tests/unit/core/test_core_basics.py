import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ValidationError
from rich.console import Console

from dllm2rec.core.errors import first_line, first_problem, suggest
from dllm2rec.core.files import package_folder
from dllm2rec.core.memory import _of_group, free_memory
from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import derive_seed, numpy_generator, torch_generator


def test_a_near_name_is_suggested_and_a_far_one_lists_what_is_known() -> None:
    assert suggest("sasrce", ["sasrec", "gru4rec"]) == " (did you mean 'sasrec'?)"
    assert suggest("xyz", ["sasrec", "gru4rec"]) == " (known: gru4rec, sasrec)"


def test_generators_of_one_purpose_agree_and_of_two_differ() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert len({derive_seed(1, "a"), derive_seed(2, "a"), derive_seed(1, "b"), derive_seed(1, "a", 0)}) == 4
    assert derive_seed(1, "ab") != derive_seed(1, "a", "b")
    assert numpy_generator(3, "x").integers(1 << 40) == numpy_generator(3, "x").integers(1 << 40)
    assert torch.equal(
        torch.rand(3, generator=torch_generator(3, "x")), torch.rand(3, generator=torch_generator(3, "x"))
    )


def test_passed_generators_leave_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    torch.rand(3, generator=torch_generator(3, "x"))
    assert torch.equal(before, torch.random.get_rng_state())


def test_core_imports_without_torch() -> None:
    code = (
        "import sys, dllm2rec, dllm2rec.core.errors, dllm2rec.core.seeding, dllm2rec.core.files;"
        "import dllm2rec.core.progress; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_terminal_a_long_run_prints_lines_with_an_estimate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dllm2rec.core.progress.SECONDS_TO_FIRST", 0.0)
    with progress_bar("labelling", 10, completed=4) as advance:
        advance(3, note="fast")
        advance(1, note="soon after")
        later = time.monotonic() + 31
        monkeypatch.setattr("dllm2rec.core.progress.time.monotonic", lambda: later)
        advance(1, note="later")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "labelling: 7/10; fast"
    assert second.startswith("labelling: 9/10, about")
    assert second.endswith("s left; later")


def test_the_estimate_is_of_the_work_itself_not_of_what_prepared_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1000.0, 1001.0, 1040.0])
    monkeypatch.setattr("dllm2rec.core.progress.time.monotonic", lambda: next(clock))
    with progress_bar("labelling", 100) as advance:
        advance(10)
        advance(1)
        advance(9)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "labelling: 10/100"
    assert second == "labelling: 20/100, about 320 s left"


def test_a_bar_fits_into_a_narrow_terminal_with_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("dllm2rec.core.progress.Console", lambda **_: console)
    with progress_bar("training work/a-run-of-a-long-name/plain-seed1, at most 30 epochs", 120) as advance:
        advance(117, note="epoch 29: loss 5.1234, validation NDCG@20 0.1234, and more that does not fit")
    bar = next(line for line in written.getvalue().splitlines() if "117/120" in line)
    assert "training work/a-run" in bar
    assert bar.rstrip().endswith("-:--:--")
    assert "\nepoch 29: loss 5.1234, validation NDCG@20 0.1234" in written.getvalue()


def test_free_memory_is_some_of_what_the_machine_has() -> None:
    free = free_memory()
    assert free is None or 0 < free < 1 << 50


def test_what_a_control_group_has_cached_can_go(tmp_path: Path) -> None:
    assert _of_group(tmp_path) is None
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 400\ninactive_file 300\nactive_file 200\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert _of_group(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_group(tmp_path) is None


def test_the_first_thing_that_an_error_says() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_the_first_problem_says_where_it_is() -> None:
    class Inner(BaseModel):
        sizes: list[int]

    class Outer(BaseModel):
        inner: Inner

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"sizes": [1, "x", "y"]}})
    assert first_problem(caught.value).startswith("inner.sizes.1: Input should be a valid integer")


def test_a_package_is_found_and_not_imported() -> None:
    found = package_folder("xml")
    assert found is not None
    assert (found / "__init__.py").is_file()
    assert package_folder("no_such_package") is None
    assert package_folder("antigravity") is None  # a module without a folder, which opens a browser when imported


PARENT = """
import time
from multiprocessing import get_context
from dllm2rec.core.processes import end_with_parent

def child():
    end_with_parent()
    time.sleep(60)

if __name__ == "__main__":
    process = get_context("spawn").Process(target=child)
    process.start()
    print(process.pid, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_started_ends_too(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while _runs(child):
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.1)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False

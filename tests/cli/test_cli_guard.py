"""How verbs end."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from cli_helpers import call
from typer import Exit

from dllm2rec.cli.guard import guarded
from dllm2rec.cli.main import app
from dllm2rec.core.errors import UserError


def end(error: BaseException, capsys: pytest.CaptureFixture[str], *, debug: bool = False) -> tuple[int, str]:
    with pytest.raises(Exit) as caught, guarded(debug=debug):
        raise error
    return caught.value.exit_code, capsys.readouterr().err


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(UserError("a.csv: row 3:\nbroken"), capsys) == (2, "error: a.csv: row 3: broken\n")


def test_an_interrupt_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = end(KeyboardInterrupt(), capsys)
    assert code == 130
    assert "the same command again goes on with what was finished" in line
    assert line.count("\n") == 1


def test_a_full_gpu_is_the_users_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = end(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), capsys)
    assert code == 2
    assert line.startswith("error: the GPU's memory is full; take a smaller language model, ")


def test_to_be_asked_to_end_is_to_be_interrupted_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
import os, signal
from pathlib import Path
from dllm2rec.cli.main import app, main
from dllm2rec.core.files import atomic_path

@app.command()
def write(path: Path) -> None:
    with atomic_path(path) as target:
        target.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, "write", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 130
    assert "interrupted; nothing is half-written" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_defect_is_one_line_and_1_and_its_traceback_comes_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = end(ZeroDivisionError("x / 0"), capsys)
    assert (code, line.count("\n")) == (1, 1)
    assert "ZeroDivisionError: x / 0 (test_cli_guard.py:" in line
    assert "please report" in line
    assert "Traceback" in end(ZeroDivisionError("x / 0"), capsys, debug=True)[1]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("polars", "train"),
        ("torch.nn", "train"),
        ("transformers", "teach"),
        ("trl", "teach"),
        ("huggingface_hub", "teach"),
        ("sentence_transformers", "teach"),
    ],
)
def test_a_missing_extra_is_named(module: str, extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = end(ModuleNotFoundError(f"No module named '{module}'", name=module), capsys)
    assert code == 2
    assert f"pip install 'dllm2rec[{extra}]'" in line


def test_a_module_that_no_extra_brings_is_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(ModuleNotFoundError("No module named 'x'", name="x"), capsys)[0] == 1


def test_a_full_disk_is_the_users_and_another_failure_of_the_system_ours(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = end(OSError(28, "No space left on device", "/data/x"), capsys)
    assert code == 2
    assert "/data/x: no space left" in line
    code, line = end(RuntimeError("I/O error: No space left on device (os error 28)"), capsys)
    assert (code, "no space left" in line) == (2, True)
    assert end(OSError(36, "File name too long", "xxx"), capsys) == (2, "error: xxx: File name too long\n")
    assert end(OSError(5, "Input/output error", "/data/x"), capsys)[0] == 1


def test_a_reader_who_left_is_nobodys_fault() -> None:
    with pytest.raises(BrokenPipeError), guarded():
        raise BrokenPipeError(32, "Broken pipe")


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    program = "import sys, dllm2rec.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "polars", "onnxruntime"} & set(done.stdout.split())


@pytest.mark.parametrize("words", [["--nope"], ["nope"], ["train", "--nope"]])
def test_what_is_not_known_is_one_line(words: list[str]) -> None:
    ended = call(*words)
    assert ended.code == 2
    assert ended.err.startswith(f"error: No such {'option: --nope' if '--nope' in words else 'command'}")
    assert ended.err.count("\n") == 1


def test_without_a_word_the_help_is_shown() -> None:
    ended = call()
    assert (ended.code, "Usage: dllm2rec" in ended.out + ended.err) == (2, True)


def test_the_version() -> None:
    assert call("--version").out == f"dllm2rec {version('dllm2rec')}\n"


def test_help_knows_every_verb() -> None:
    program = [sys.executable, "-m", "dllm2rec", "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    verbs = [str(command.name or command.callback.__name__).replace("_", "-") for command in app.registered_commands]
    assert len(verbs) > 15
    for verb in verbs:
        assert re.search(rf"^\W*{verb}  ", done.stdout, flags=re.MULTILINE), verb
        assert "Example: dllm2rec" in call(verb, "--help").out

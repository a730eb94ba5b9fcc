import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from dllm2rec.core import files
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import (
    BusyError,
    atomic_path,
    exclusive,
    explain_os_error,
    fingerprint,
    hash_file,
    hash_json,
    read_json,
    require_fresh_directory,
    write_json,
)


def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as target:
        target.write_text("half")
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_the_process_lets_them_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a")
    with atomic_path(tmp_path / "folder") as target:
        target.mkdir()
        (target / "private").write_text("b")
        (target / "private").chmod(0o600)
    modes = {file.stat().st_mode for file in (tmp_path / "plain", tmp_path / "folder" / "private")}
    assert len(modes) == 1


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "directory"
    with atomic_path(path) as target:
        target.mkdir()
        (target / "x").write_text("1")
        assert not path.exists()
    assert (path / "x").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_no_space_left_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with pytest.raises(UserError, match="no space left"), atomic_path(path) as target:
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_no_space_left_is_seen_where_a_library_tells_it_in_words_alone(tmp_path: Path) -> None:
    told = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(UserError, match="big: no space left"), atomic_path(tmp_path / "big"):
        raise told
    with pytest.raises(SafetensorError, match="shared"), atomic_path(tmp_path / "big"):
        raise SafetensorError("shared memory")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file stands where a directory is needed"):
        write_json(tmp_path / "file" / "x.json", {})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_where_no_directory_can_be_made_is_named() -> None:
    with pytest.raises(UserError, match=r"/proc/x/y: no directory can be made in /proc/x; choose another --out"):
        write_json(Path("/proc/x/y"), {})


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "no permission"), (errno.EROFS, "no permission"), (errno.EIO, "Input/output error")],
)
def test_failures_of_the_file_system_say_what_to_do(code: int, words: str) -> None:
    error = explain_os_error(OSError(code, "Input/output error"), Path("out"))
    assert str(error).startswith("out: ")
    assert words in str(error)
    assert "\n" not in str(error)


def test_nan_never_reaches_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_reading_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json: no such file"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad\.json: not a JSON file"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.json: not a JSON file"):
        read_json(tmp_path / "binary.json")


def test_hashes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_fingerprint_tells_weights_and_names_apart(tmp_path: Path) -> None:
    def model(name: str, size: int = 3_000_000, first: bytes = b"a", file: str = "model.safetensors") -> Path:
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        (tmp_path / name / "1_Pooling" / "config.json").write_text("{}")
        (tmp_path / name / file).write_bytes(first + bytes(size - 1))
        return tmp_path / name

    assert fingerprint(model("a")) == fingerprint(model("b"))
    others = [model("c", size=3_000_001), model("d", first=b"b"), model("e", file="other.safetensors")]
    tuned = model("f")
    with (tuned / "model.safetensors").open("r+b") as file:
        file.seek(1_234_567)
        file.write(b"x")
    assert len({fingerprint(one) for one in [tmp_path / "a", tuned, *others]}) == 5
    assert fingerprint(tuned / "model.safetensors") != fingerprint(tmp_path / "a" / "model.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    assert len(fingerprint(tmp_path / "empty")) == 16


def test_an_output_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    require_fresh_directory(tmp_path / "absent", marker="dataset.json")
    require_fresh_directory(tmp_path, marker="dataset.json")
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(UserError, match="holds something else"):
        require_fresh_directory(tmp_path, marker="dataset.json")
    (tmp_path / "dataset.json").write_text("{}")
    require_fresh_directory(tmp_path, marker="dataset.json")
    with pytest.raises(UserError, match="a file stands"):
        require_fresh_directory(tmp_path / "thesis.doc", marker="dataset.json")


HOLDER = """
import sys, time
from pathlib import Path
from dllm2rec.core.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_do_not_write_to_one_place_and_a_killed_one_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        start = time.monotonic()
        words = r"new/run: another dllm2rec is writing there; wait .* another --out"
        with pytest.raises(BusyError, match=words), exclusive(path):
            pass
        assert time.monotonic() - start < 1
        with exclusive(path / "inside"), exclusive(path.with_name("run-2")):  # others are free
            pass
    finally:
        holder.kill()
        holder.wait()
    assert [file.name for file in path.parent.iterdir()] == [".run.lock"]
    require_fresh_directory(path.parent, marker="experiment.json")  # it counts as nothing
    with exclusive(path):
        pass
    assert not list(path.parent.iterdir())


def test_a_lock_leaves_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with exclusive(tmp_path / "a" / "b"):
        write_json(tmp_path / "a" / "b" / "x.json", 1)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["a", "a/b", "a/b/x.json"]
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    with exclusive(tmp_path / "link"), pytest.raises(BusyError), exclusive(tmp_path / "a" / "b"):
        pass


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_does_without(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr("fcntl.flock", refuses)
    with exclusive(tmp_path / "run"), exclusive(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_windows_and_a_place_that_takes_no_file_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with exclusive(tmp_path / "file" / "run"):
        pass
    monkeypatch.setattr(files, "fcntl", None)
    with exclusive(tmp_path / "run"), exclusive(tmp_path / "run"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]

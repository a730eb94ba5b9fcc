import errno
import json
from pathlib import Path

import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import (
    atomic_path,
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


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file stands where a directory is needed"):
        write_json(tmp_path / "file" / "x.json", {})


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
        file.seek(-1, 2)
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

"""Files that are whole or absent: atomic writes, hashes, and readable failures of the file system."""

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dllm2rec.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def os_error_of(error: Exception) -> OSError | None:
    """Return the failure of the file system behind what a library raised, None where none shows.

    Libraries in Rust (safetensors, Polars) tell its number in words alone: "No space left on device (os error 28)".
    """
    if isinstance(error, OSError):
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def is_of_files(error: UserError) -> bool:
    """Say whether a failure of the file system is behind an error, so that the same may work later."""
    return isinstance(error.__cause__, Exception) and os_error_of(error.__cause__) is not None


def explain_os_error(error: OSError, path: Path) -> UserError:
    """Turn a failure of the file system into one line that says what to do."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return UserError(f"{path}: no space left on the device; free some space and start again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return UserError(f"{path}: no permission; change the permissions, or choose another place")
        case errno.ENOTDIR | errno.EEXIST:
            return UserError(f"{path}: a file stands where a directory is needed; choose another --out")
        case _:
            return UserError(f"{path}: {error.strerror or error}")


def _new_file_mode() -> int:
    """Return the mode that a new file gets here."""
    masked = os.umask(0)  # it can only be read by setting it
    os.umask(masked)
    return 0o666 & ~masked


_MODE = _new_file_mode()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    Works for a file or a directory that the block creates. An existing file is replaced; an existing directory is not.
    Files get the mode of any new file, whatever library wrote them.

    Raises:
        UserError: the file system refuses (no space, no permission, a file in the way), or ``path`` is where the
            process stands.
    """
    temporary, path = None, path.resolve()  # a link stays one
    if path == Path.cwd():
        raise UserError(f"{path}: you stand in it, so no other can take its place; choose another --out")
    try:
        temporary = _make_temporary(path)
        target = temporary / path.name
        yield target
        for file in (target, *target.rglob("*")):  # safetensors leaves files that nobody else may read
            if file.is_file() and not file.is_symlink():
                file.chmod(_MODE)
                with file.open("rb") as handle:  # on the disk before the name is, even if the power fails
                    os.fsync(handle.fileno())
        target.replace(path)
    except UserError:
        raise
    except Exception as error:
        failure = os_error_of(error)
        if failure is None:
            raise
        raise explain_os_error(failure, path) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _make_temporary(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except FileNotFoundError:  # as below /proc
        raise UserError(f"{path}: no directory can be made in {path.parent}; choose another --out") from None


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left in ``folder`` in the middle of `atomic_path`; nobody else may write there."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


class BusyError(UserError):
    """Another process writes where this one would."""


@contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask here, too, from writing to ``path`` while the block runs.

    The lock is on a hidden file beside ``path``, which is removed in the end. A killed process leaves the file, but the
    kernel frees the lock, so nobody has to clean up. Where there are no locks, or nothing may be written beside
    ``path``, the block runs without.

    Args:
        path: of a file or a directory.
        wait: for who is writing there, where that takes a moment.

    Raises:
        BusyError: another one is writing there.
    """
    whole = path.resolve()
    file = whole.parent / f".{whole.name}.lock"
    made = [folder for folder in whole.parents if not folder.exists()]
    try:
        handle = _lock(file, wait=wait)
    except BlockingIOError:
        raise BusyError(
            f"{path}: another dllm2rec is writing there; wait until it ends, or choose another --out"
        ) from None
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                file.unlink()  # while it is ours
            os.close(handle)
        for folder in made:
            with suppress(OSError):  # it holds something, as it should
                folder.rmdir()


def _lock(file: Path, *, wait: bool) -> int | None:
    """Return a handle that holds the lock on ``file``, None where no lock can be had.

    Raises:
        BlockingIOError: another one holds it, and nobody waits.
    """
    if fcntl is None:
        return None
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None  # whoever writes to the path itself will say what is wrong
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        except FileNotFoundError:  # removed just now
            pass
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise
            with suppress(OSError):
                file.unlink()
            return None
        os.close(handle)  # who held it before has removed the file: it locks nothing any more


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN is refused: it is not JSON."""
    with atomic_path(path) as target:
        target.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); restore it, or remove it and make it again") from None
    except OSError as error:
        raise explain_os_error(error, path) from error


def read_versioned(file: Path, version: int, *, remedy: str) -> Any:
    """Read a JSON file that says of which version the format of its directory is.

    Args:
        file: to be read.
        version: that it must be of.
        remedy: what to do about another one, for the message.

    Raises:
        UserError: the file is missing, is not JSON, or is of another version.
    """
    value = read_json(file)
    found = value.get("format_version") if isinstance(value, dict) else None
    if found != version:
        raise UserError(f"{file.parent}: format version {found!r}, not {version}; {remedy}")
    return value


def hash_json(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Return sixteen hexadecimal digits of a SHA-256 over a file, or over names and contents of a directory's files."""
    if path.is_file():
        return hash_file(path)[:16]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hash_json({file.relative_to(path).as_posix(): hash_file(file) for file in files})


def package_folder(module: str) -> Path | None:
    """Return where an installed package lies, None where it is not installed. It is not imported."""
    spec = importlib.util.find_spec(module)
    return next((Path(place) for place in (spec and spec.submodule_search_locations) or ()), None)


def require_absent(path: Path) -> None:
    """Check that nothing is at ``path`` yet.

    Raises:
        UserError: something is.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; choose another --out or remove it")


def require_fresh_directory(path: Path, *, marker: str) -> None:
    """Check that ``path`` can take our output: absent, empty, or already ours because it holds ``marker``.

    What `exclusive` and `atomic_path` left of a killed process counts as nothing.

    Raises:
        UserError: something else is there; it is left as it is.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: a file stands where a directory is needed; choose another --out")
    if not (path / marker).exists() and any(
        not (file.match(".*.lock") or file.match(".*.tmp")) for file in path.iterdir()
    ):
        raise UserError(f"{path}: holds something else (no {marker} in it); choose another --out or empty it")

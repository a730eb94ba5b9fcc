"""How much memory this process has needed, and may still take."""

import sys
from pathlib import Path


def peak_memory() -> int | None:
    """Return the most bytes that this process has had in memory; None where the system does not say."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ModuleNotFoundError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def free_memory() -> int | None:
    """Return how many bytes this process may still take, as far as the system says; None where it does not."""
    rooms = [room for room in (_of_machine(), _of_group()) if room is not None]
    return min(rooms, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _of_group(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Ask version 2 of Linux's control groups, which is how containers are bounded; files it has cached can go."""
    try:
        most, used, details = (
            (group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current", "memory.stat")
        )
        found = dict(line.split() for line in details.splitlines())
        cached = sum(int(found.get(name, 0)) for name in ("inactive_file", "active_file"))
        return max(0, int(most) - int(used) + cached)
    except (OSError, ValueError):
        return None

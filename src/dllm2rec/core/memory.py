"""How much memory this process has needed."""

import sys


def peak_memory() -> int | None:
    """Return the most bytes that this process has had in memory; None where the system does not say."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ModuleNotFoundError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size

"""Approximate top-k for very large catalogues: a graph index (HNSW, by usearch) beside the exact item vectors.

The largest inner product is not the smallest angle. So each item gets one more coordinate that gives all vectors the
same length, and each query a zero there; then both orders are the same (Bachrach et al. 2014).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError

Floats = NDArray[np.float32]
LINKS, EFFORT_TO_BUILD, EFFORT_TO_SEARCH = 32, 128, 512


class ApproximateIndex:
    """Finds items that are probably the best.

    Args:
        file: that `write_index` wrote.
        size: of the vectors, D.
        biased: whether the items have biases.

    Raises:
        UserError: usearch is not installed, or the file is damaged.
    """

    def __init__(self, file: Path, *, size: int, biased: bool) -> None:
        self._biased = biased
        self._index = _new(size + biased)
        try:
            self._index.load(str(file))
        except RuntimeError as error:
            raise UserError(f"{file}: damaged ({error}); export the bundle again") from None

    def search(self, hidden: Floats, count: int) -> NDArray[np.int64]:
        """List ``count`` items for each sequence vector `[B, D]`; where it finds fewer, the rest is -1."""
        parts = [hidden, *([np.ones((len(hidden), 1), np.float32)] if self._biased else [])]
        queries = np.concatenate([*parts, np.zeros((len(hidden), 1), np.float32)], axis=1)
        found = np.full((len(hidden), count), -1, np.int64)
        for row, query in enumerate(queries):
            keys = self._index.search(query, count).keys
            found[row, : len(keys)] = keys
        return found


def write_index(file: Path, vectors: Floats, bias: Floats | None) -> None:
    """Build the index of item vectors `[V, D]` and biases `[V]`.

    Raises:
        UserError: usearch is not installed.
        OSError: the file can't be written.
    """
    points = vectors if bias is None else np.concatenate([vectors, bias[:, None]], axis=1)
    squares = (points.astype(np.float64) ** 2).sum(axis=1)
    last = np.sqrt(squares.max() - squares).astype(np.float32)
    index = _new(points.shape[1])
    index.add(np.arange(len(points)), np.concatenate([points, last[:, None]], axis=1).astype(np.float32), threads=1)
    try:
        index.save(str(file))
    except RuntimeError as error:  # "Failed to serialize into stream": usearch does not say why
        raise OSError(f"{file.name} can't be written ({error}); is the disk full?") from None


def _new(size: int):  # type: ignore[no-untyped-def]
    try:
        from usearch.index import Index  # noqa: PLC0415 - an extra that few need
    except ImportError:
        raise UserError("an approximate index needs usearch; install dllm2rec[ann]") from None
    return Index(
        ndim=size + 1,
        metric="cos",
        dtype="f32",
        connectivity=LINKS,
        expansion_add=EFFORT_TO_BUILD,
        expansion_search=EFFORT_TO_SEARCH,
    )

"""Exact top-k over a catalogue: blocks of a matrix product, partial selection, ties by index."""

import numpy as np
from numpy.typing import NDArray

SCORES_AT_ONCE = 4_000_000


def top_items(
    hidden: NDArray[np.float32],
    weight: NDArray[np.float32],
    *,
    k: int,
    bias: NDArray[np.float32] | None = None,
    banned: list[NDArray[np.int64]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k best items for each sequence vector; equal scores in order of the index.

    Memory holds at most `SCORES_AT_ONCE` scores, or those of one sequence.

    Args:
        hidden: `[B, D]`.
        weight: `[V, D]`.
        k: at least 1 and at most V.
        bias: `[V]`, or None.
        banned: for each sequence items that it must not get; their score is -inf.

    Returns:
        `[B, k]` items, best first, and `[B, k]` scores.
    """
    size = max(1, SCORES_AT_ONCE // len(weight))
    items = np.empty((len(hidden), k), np.int64)
    scores = np.empty((len(hidden), k), np.float32)
    for start in range(0, len(hidden), size):
        part = slice(start, min(start + size, len(hidden)))
        block = hidden[part] @ weight.T
        if bias is not None:
            block += bias
        if banned is not None:
            for row, out in enumerate(banned[part]):
                block[row, out] = -np.inf
        for row, values in enumerate(block):
            items[start + row] = _best(values, k)
            scores[start + row] = values[items[start + row]]
    return items, scores


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """List the k best of `[V]` scores; of those that tie for the last places, the first in order of the index."""
    if k < len(scores):
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > bound)
        equal = np.flatnonzero(scores == bound)[: k - len(above)]
        chosen = np.concatenate([above, equal])
        chosen.sort()
    else:
        chosen = np.arange(len(scores))
    order = np.argsort(-scores[chosen], kind="stable")
    best: NDArray[np.int64] = chosen[order]
    return best

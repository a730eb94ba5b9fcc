"""Exact top-k over a catalogue: blocks of a matrix product, partial selection, ties by index."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORES_AT_ONCE = 4_000_000
MIN_COLUMNS = 512
COLUMNS_PER_ITEM = 8


@dataclass(frozen=True, kw_only=True)
class Bonus:
    """What some items get on top of their scores.

    Attributes:
        items: distinct, ascending.
        scores: of each.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def among(self, rows: NDArray[np.int64]) -> "Bonus":
        """Return what those of ``rows``, ascending, get; their items are places in ``rows``."""
        there = np.isin(self.items, rows)
        return Bonus(items=np.searchsorted(rows, self.items[there]), scores=self.scores[there])


def top_items(
    hidden: NDArray[np.float32],
    weight: NDArray[np.float32],
    *,
    k: int,
    bias: NDArray[np.float32] | None = None,
    banned: list[NDArray[np.int64]] | None = None,
    added: list[Bonus] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k best items for each sequence vector; equal scores in order of the index.

    Memory holds at most `SCORES_AT_ONCE` scores, or those of one sequence, beside what it is given.

    Args:
        hidden: `[B, D]`.
        weight: `[V, D]`.
        k: at most V.
        bias: `[V]`, or None.
        banned: for each sequence items that it must not get; their score is -inf.
        added: for each sequence what some items get on top of their scores.

    Returns:
        `[B, k]` items, best first, and `[B, k]` scores.
    """
    size = max(1, SCORES_AT_ONCE // max(1, len(weight)))
    items = np.empty((len(hidden), k), np.int64)
    scores = np.empty((len(hidden), k), np.float32)
    for start in range(0, len(hidden), size):
        part = slice(start, min(start + size, len(hidden)))
        block = hidden[part] @ weight.T
        if bias is not None:
            block += bias
        if added is not None:
            for row, more in enumerate(added[part]):
                block[row, more.items] += more.scores
        if banned is not None:
            for row, out in enumerate(banned[part]):
                block[row, out] = -np.inf
        for row, values in enumerate(block):
            items[start + row] = best_items(values, k)
            scores[start + row] = values[items[start + row]]
    return items, scores


def best_items(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """List the k best of `[V]` scores; of those that tie for the last places, the first in order of the index."""
    chosen = np.flatnonzero(scores >= _bound(scores, k))
    if len(chosen) > k:
        values = scores[chosen]
        worst = np.partition(values, len(values) - k)[len(values) - k]
        above, equal = chosen[values > worst], chosen[values == worst]
        chosen = np.concatenate([above, equal[: k - len(above)]])
        chosen.sort()
    order = np.argsort(-scores[chosen], kind="stable")
    best: NDArray[np.int64] = chosen[order]
    return best


def _bound(scores: NDArray[np.float32], k: int) -> np.float32:
    """Return a score that at least k of `[V]` scores reach, and few more, from the maxima of columns of `[?, C]`."""
    columns = max(MIN_COLUMNS, COLUMNS_PER_ITEM * k)
    if len(scores) < 2 * columns:
        return np.float32(-np.inf)
    whole = len(scores) // columns * columns
    maxima = scores[:whole].reshape(-1, columns).max(axis=0)
    bound: np.float32 = np.partition(maxima, columns - k)[columns - k]
    return bound

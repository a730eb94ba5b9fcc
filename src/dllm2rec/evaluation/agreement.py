"""How far teacher and student agree, and who is right (tables 2, 3 and 7 of Cui et al. 2024)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class WinRatio:
    """Who wins where two systems differ.

    Attributes:
        first: share of the examples that differ in which the first has the greater value.
        second: the same of the second; 0 and 0 where nothing differs.
        differing: number of examples that differ.
    """

    first: float
    second: float
    differing: int


@dataclass(frozen=True, kw_only=True)
class OverlapHits:
    """How often a listed item is the target.

    Attributes:
        both: share of hits among items in both lists.
        one: share of hits among items in exactly one.
    """

    both: float
    one: float


def win_ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> WinRatio:
    """Compare a metric of two systems example by example, `[N]` each (table 2).

    Raises:
        ValueError: the two differ in length.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values against {len(second)}")
    wins, losses = int((first > second).sum()), int((first < second).sum())
    total = max(wins + losses, 1)
    return WinRatio(first=wins / total, second=losses / total, differing=wins + losses)


def overlap(first: Items, second: Items) -> float:
    """Share of what lists `[N, K]` of distinct items hold that others `[N, K]` hold, too (tables 3 and 7).

    The -1 that fill up a list which ends early are no items.
    """
    return float(_shared(first, second).sum() / max(1, (first >= 0).sum()))


def hit_rate_by_overlap(first: Items, second: Items, targets: Items) -> OverlapHits:
    """Compare the hits of items in both lists `[N, K]` with those of items in one; ``targets`` is `[N]` (table 3).

    The -1 that fill up a list which ends early are no items.
    """
    shared, alone = _shared(first, second), (second >= 0) & ~_shared(second, first)
    other = (first >= 0) & ~shared
    hit_first, hit_second = first == targets[:, None], second == targets[:, None]
    hits_one = int((hit_first & other).sum() + (hit_second & alone).sum())
    count_both, count_one = int(shared.sum()), int(other.sum() + alone.sum())
    return OverlapHits(both=int((hit_first & shared).sum()) / max(count_both, 1), one=hits_one / max(count_one, 1))


def _shared(first: Items, second: Items) -> NDArray[np.bool_]:
    """Return which items of ``first`` stand in the same row of ``second``, `[N, K]`."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} lists against {len(second)}")
    shared = np.zeros(first.shape, np.bool_)
    for column in second.T:
        shared |= first == column[:, None]
    return shared & (first >= 0)

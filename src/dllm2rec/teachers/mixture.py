"""Several teachers as one: a weighted mean of their probabilities (linear opinion pool, Stone 1961).

With ``q_k`` the probabilities of teacher k over the catalogue (`knowledge/confidence.py`) and ``A`` the teachers that
labelled an example, ``p(i) = sum_{k in A} pi_k q_k(i) / sum_{k in A} pi_k``. The weights are those under which the true
next items are likeliest, found by expectation and maximisation (Dempster, Laird & Rubin 1977).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dllm2rec.knowledge import Labels
from dllm2rec.knowledge.confidence import Shares, shares

Doubles = NDArray[np.float64]

LEAST_SHARE = 1e-30
"""No probability is taken for less, so that distances stay finite."""
LEAST_WEIGHT = 1e-12
"""Nor a weight, so that an example that one teacher alone labelled is that teacher's."""
TOLERANCE = 1e-9
"""Weights that change by no more have been found."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one teacher says about some of B examples.

    Attributes:
        place: `[N]` int64, which of the B.
        shares: its probabilities, `[N, ...]`.
    """

    place: NDArray[np.int64]
    shares: Shares


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """The mixture's lists of B examples.

    Attributes:
        items: `[B, K]` int64, the likeliest first, ties by smaller index.
        share: `[B, K]` float64, their probabilities.
        target_share: `[B]` float64, that of the true next item.
    """

    items: NDArray[np.int64]
    share: Doubles
    target_share: Doubles


def opinion(labels: Labels, rows: NDArray[np.int64], *, temperature: float, num_items: int) -> Opinion:
    """Turn a teacher's labels into probabilities.

    Args:
        labels: of the teacher.
        rows: `[B]`, for each example its row in ``labels``, or -1, from `align`.
        temperature: of the teacher's distances.
        num_items: V.
    """
    place = np.flatnonzero(rows >= 0)
    used = rows[place]
    return Opinion(
        place=place,
        shares=shares(
            ranked_items=labels.ranked_items[used],
            distances=labels.distances[used],
            temperature=temperature,
            num_items=num_items,
        ),
    )


def fit_weights(share: Doubles, labelled: NDArray[np.bool_], *, iterations: int = 10_000) -> Doubles:
    """Find the weights of M teachers under which the true next items of N examples are likeliest.

    Begins with equal weights and ends when none changes by more than `TOLERANCE`.

    Args:
        share: `[N, M]`, probability that each teacher gives the true item; whatever it is where there is no label.
        labelled: `[N, M]`, which teacher labelled which example; each example has a label.
        iterations: at most.

    Returns:
        `[M]`, their sum is 1.
    """
    weights = np.full(share.shape[1], 1 / share.shape[1])
    for _ in range(iterations):
        before, weights = weights, improve_weights(share, labelled, weights)
        if np.abs(weights - before).max() <= TOLERANCE:
            break
    return weights


def improve_weights(share: Doubles, labelled: NDArray[np.bool_], weights: Doubles) -> Doubles:
    """Do one step of expectation and maximisation; the true items are never less likely after it.

    An example counts for the teachers A that labelled it by their part in the true item's probability. A label that is
    missing is missing at random: the other teachers get their expected count, ``pi_k / sum_{j in A} pi_j``.

    Args:
        share: `[N, M]`, see `fit_weights`.
        labelled: `[N, M]`, see `fit_weights`.
        weights: `[M]`.
    """
    part = np.where(labelled, weights * np.maximum(share, LEAST_SHARE), 0.0)
    present = np.where(labelled, weights, 0.0).sum(axis=1, keepdims=True)
    counts = np.where(labelled, part / part.sum(axis=1, keepdims=True), weights / present).sum(axis=0)
    counts = np.maximum(counts / counts.sum(), LEAST_WEIGHT)
    improved: Doubles = counts / counts.sum()
    return improved


def mix(
    opinions: Sequence[Opinion], weights: Doubles, *, target: NDArray[np.integer], depth: int, num_items: int
) -> Mixed:
    """Mix what M teachers say about B examples and list the likeliest items.

    Only items that some teacher lists can be listed: the others are nowhere likelier.

    Args:
        opinions: of each teacher; together they speak of every example.
        weights: `[M]`.
        target: `[B]`, the true next items.
        depth: items listed, K; no more than the shortest list of a teacher.
        num_items: V.
    """
    rows = np.arange(len(target), dtype=np.int64)
    total, outside = np.zeros(len(target)), np.zeros(len(target))
    for said, weight in zip(opinions, weights, strict=True):
        total[said.place] += weight
    keys, gains = [], []
    for said, weight in zip(opinions, weights, strict=True):
        part = weight / total[said.place]
        outside[said.place] += part * said.shares.outside
        keys.append((said.place[:, None] * num_items + said.shares.items).ravel())
        gains.append((part[:, None] * (said.shares.listed - said.shares.outside[:, None])).ravel())
    key, which = np.unique(np.concatenate(keys), return_inverse=True)
    row, item = np.divmod(key, num_items)
    share = np.maximum(outside[row] + np.bincount(which, np.concatenate(gains)), LEAST_SHARE)
    order = np.lexsort((item, -share, row))
    best = order[np.searchsorted(row, rows)[:, None] + np.arange(depth)]
    own = rows * num_items + target
    found = np.minimum(np.searchsorted(key, own), len(key) - 1)
    target_share = np.where(key[found] == own, share[found], np.maximum(outside, LEAST_SHARE))
    return Mixed(items=item[best], share=share[best], target_share=target_share)

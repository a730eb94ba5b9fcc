"""Metrics of ranks, one value an example. Averages are plain means over examples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
TOP = 20
"""How many items of a list the tables look at."""
HITS = f"HR@{TOP}"
METRIC = f"NDCG@{TOP}"
"""By which everything is chosen and tested."""
METRICS = (HITS, METRIC)
"""That tables show."""


def hit_rate(rank: Values, k: int) -> Values:
    """HR@k: 1 where the target is among the first k.

    >>> hit_rate(np.array([1.0, 20.0, 20.5]), 20).tolist()
    [1.0, 1.0, 0.0]
    """
    _check(rank, k)
    return (rank <= k).astype(np.float64)


def ndcg(rank: Values, k: int) -> Values:
    """NDCG@k with one relevant item: ``1 / log2(rank + 1)`` where the target is among the first k, else 0.

    >>> ndcg(np.array([1.0, 3.0, 21.0]), 20).tolist()
    [1.0, 0.5, 0.0]
    """
    _check(rank, k)
    return np.where(rank <= k, 1.0 / np.log2(rank + 1.0), 0.0)


def reciprocal_rank(rank: Values, k: int) -> Values:
    """MRR@k: ``1 / rank`` where the target is among the first k, else 0.

    >>> reciprocal_rank(np.array([1.0, 4.0, 30.0]), 20).tolist()
    [1.0, 0.25, 0.0]
    """
    _check(rank, k)
    return np.where(rank <= k, 1.0 / rank, 0.0)


def summary(rank: Values, ks: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """Average every metric at every k.

    Returns:
        Such as ``{"HR@5": ..., "NDCG@5": ..., "MRR@5": ..., ...}``.

    Raises:
        ValueError: there is no example, a rank below 1 or NaN, or a k below 1.

    >>> summary(np.array([1.0, 3.0]), ks=(1, 3))
    {'HR@1': 0.5, 'NDCG@1': 0.5, 'MRR@1': 0.5, 'HR@3': 1.0, 'NDCG@3': 0.75, 'MRR@3': 0.6666666666666666}
    """
    if len(rank) == 0:
        raise ValueError("there is no example to average over")
    metrics = {"HR": hit_rate, "NDCG": ndcg, "MRR": reciprocal_rank}
    return {f"{name}@{k}": float(metric(rank, k).mean()) for k in ks for name, metric in metrics.items()}


def coverage(top_items: NDArray[np.int32], num_items: int) -> float:
    """Share of the catalogue that stands in at least one list `[N, K]`.

    >>> coverage(np.array([[0, 1], [1, 2]], dtype=np.int32), 6)
    0.5
    """
    return len(np.unique(top_items)) / num_items


def _check(rank: Values, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if not (rank >= 1).all():
        raise ValueError("ranks are at least 1")

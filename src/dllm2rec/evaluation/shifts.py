"""What many shifts of scores would gain, without ranking under each."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dllm2rec.data.demand import Demand
from dllm2rec.evaluation.metrics import TOP, ndcg


def gains_under_shifts(
    scores: NDArray[np.float32],
    target: NDArray[np.integer],
    demand: Demand,
    weights: Sequence[tuple[float, float]],
) -> NDArray[np.float64]:
    """Return the NDCG@20 of targets `[N]` by scores `[N, V]` under the shift of each of P weights, `[P, N]`.

    The same as ranking under each shift, and much cheaper. Every shift is a mixture of those of four corners: the least
    and the greatest of either weight. So what outranks a target under all four outranks it under every shift, and
    twenty of those leave it without any gain; and what outranks it under none of them never does.

    Args:
        scores: finite.
        target: an item for each row.
        demand: has trend and newness of the items.
        weights: of both.
    """
    ends = [(min(side), max(side)) for side in zip(*weights, strict=True)]
    corners = [demand.shift(trend=trend, new=new) for trend, new in product(*ends)]
    own = scores[np.arange(len(target)), target]
    least, most = np.full_like(scores, np.inf), np.full_like(scores, -np.inf)
    for shift in corners:
        lead = scores + (shift - (own + shift[target])[:, None])
        np.minimum(least, lead, out=least)
        np.maximum(most, lead, out=most)
    largest = max(float(np.abs(shift).max()) for shift in corners)
    slack = 16 * np.finfo(np.float32).eps * (np.abs(scores).max(axis=1) + 2 * largest)  # by so much rounding may err
    gains = np.zeros((len(weights), len(target)))
    trend, new = np.array(weights, np.float32).T[:, :, None]
    for one in np.flatnonzero(np.count_nonzero(least > slack[:, None], axis=1) < TOP):
        rivals = np.append(target[one], np.flatnonzero(most[one] >= -slack[one]))  # the target is among them, too
        moved = scores[one, rivals] + (trend * demand.trend[rivals] + new * demand.new[rivals])
        bar, moved = moved[:, :1], moved[:, 1:]
        greater, equal = (np.count_nonzero(found, axis=1) for found in (moved > bar, moved == bar))
        gains[:, one] = ndcg(1.0 + greater + (equal - 1.0) / 2.0, TOP)
    return gains

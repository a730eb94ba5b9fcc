"""Distances of a teacher on a scale where ``exp(-d)`` says something.

The paper weights by ``exp(-d)`` (Cui et al. 2024, eq. 7) and leaves the scale of d open. Squared distances between
states of a language model are in the thousands: ``exp(-5000)`` is zero, and after normalisation all weight lies on the
one nearest; divided by a large constant, all weights are equal. So distances are first centred and divided by their
own spread over the run, robustly:

    z = clip((d - median) / (1.4826 x median absolute deviation), -3, 3)

which for normally distributed distances is the usual z-score (of an even number of values the median is the lower one
of the middle two). Where more than half of the distances are equal (a
teacher that often writes the very title of the target has many zeros) the standard deviation takes the place of the
median absolute deviation. The clip bounds the ratio of two weights by ``exp(6)``. Multiplying all distances by a
constant, or adding one, changes nothing.
"""

from typing import Literal

import torch
from torch import Tensor

from dllm2rec.losses.checks import require_scores

Normalisation = Literal["robust", "none"]
LIMIT = 3.0
MAD_TO_DEVIATION = 1.4826
_NEXT_TO_NOTHING = 1e-6


def normalise_distances(distances: Tensor, *, normalisation: Normalisation = "robust") -> Tensor:
    """Put one distance a sequence on the scale of the run.

    Args:
        distances: `[N]`, of the sequences' targets.
        normalisation: `robust` as this file's head says; `none` keeps the distances as they are.

    Returns:
        `[N]` float64; all zero where all distances are equal.

    Raises:
        ValueError: empty, not a vector, or not finite.
    """
    require_scores("distances", distances, (None,))
    distances = distances.to(torch.float64)
    if normalisation == "none":
        return distances
    return _over_spread(distances - distances.median())


def normalise_listed_distances(distances: Tensor, *, normalisation: Normalisation = "robust") -> Tensor:
    """Put the distances of listed items on the scale of the run, each list centred by itself.

    Args:
        distances: `[N, K]`, of the items of N lists.
        normalisation: `robust` centres by the median of the list and divides by the spread around it over all lists;
            `none` keeps the distances as they are.

    Returns:
        `[N, K]` float64.

    Raises:
        ValueError: empty, not a matrix, or not finite.
    """
    require_scores("distances", distances, (None, None))
    distances = distances.to(torch.float64)
    if normalisation == "none":
        return distances
    return _over_spread(distances - distances.median(dim=1, keepdim=True).values)


def _over_spread(residuals: Tensor) -> Tensor:
    sizes = residuals.abs().flatten()
    spread, most = MAD_TO_DEVIATION * sizes.median(), sizes.kthvalue(max(1, round(0.9 * len(sizes)))).values
    if spread <= _NEXT_TO_NOTHING * most:  # more than half are equal but for rounding
        spread = residuals.std(correction=0)
    if spread == 0.0:
        return torch.zeros_like(residuals)
    return (residuals / spread).clamp(-LIMIT, LIMIT)

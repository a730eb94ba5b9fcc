"""The weights of importance-aware ranking distillation (Cui et al. 2024, eqs. 6, 7, 8 and 10)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.losses.checks import require_scores

COLUMNS_AT_ONCE = 128


def position_weights(ranks: Tensor, *, beta: float) -> Tensor:
    """Position-aware weights (eq. 6): proportional to ``exp(-r / beta)`` within a list.

    Args:
        ranks: `[..., K]`, places in the teacher's list, from 1.
        beta: temperature, above 0.

    Returns:
        `[..., K]`, each list sums to 1.

    Raises:
        ValueError: ``beta`` is not positive, or there is no list.
    """
    if beta <= 0.0:
        raise ValueError(f"beta must be above 0, not {beta}")
    if ranks.numel() == 0:
        raise ValueError("ranks is empty")
    return torch.softmax(-ranks.to(torch.float64) / beta, dim=-1).to(torch.float32)


def sequence_confidence(distances: Tensor, *, size: int) -> Tensor:
    """Confidence of a sequence (eq. 7): proportional to ``exp(-d)``, d from the text to the true next item.

    The paper leaves the factor open. Here the K copies that a list of K items gets sum to 1 on average over the
    sequences, as the position weights of a list do, so that ``gamma_position`` and ``gamma_confidence`` compare like
    with like.

    Args:
        distances: `[N]`, normalised (see `normalise_distances`), of all sequences that are trained on.
        size: K.

    Returns:
        `[N]`, with mean 1 / K.

    Raises:
        ValueError: empty, misshapen or non-finite distances.
    """
    require_scores("distances", distances, (None,))
    shares = torch.softmax(-distances.to(torch.float64), dim=0)
    return (shares * (len(distances) / size)).to(torch.float32)


def item_confidence(distances: Tensor) -> Tensor:
    """Confidence of a listed item, as in the authors' code: proportional to ``exp(-d)`` within a list.

    Args:
        distances: `[N, K]`, normalised (see `normalise_listed_distances`), of the listed items from the text.

    Returns:
        `[N, K]`, each list sums to 1.

    Raises:
        ValueError: empty, misshapen or non-finite distances.
    """
    require_scores("distances", distances, (None, None))
    return torch.softmax(-distances.to(torch.float64), dim=1).to(torch.float32)


def consistency_weights(scores: Tensor, candidates: Tensor) -> Tensor:
    """Consistency (eq. 8): 1 where a candidate is among the student's own top K too, else 0.

    An item that ties with the K-th is in.

    Args:
        scores: `[B, V]`, the student's, without gradient.
        candidates: `[B, K]`, the teacher's list.

    Returns:
        `[B, K]` of the scores' type.

    Raises:
        ValueError: the shapes do not fit.
    """
    require_scores("candidates", candidates, (len(scores), None))
    last_in = kth_largest(scores, min(candidates.shape[1], scores.shape[1]))
    return (scores.gather(1, candidates) >= last_in.unsqueeze(1)).to(scores.dtype)


def kth_largest(scores: Tensor, k: int) -> Tensor:
    """Return the k-th largest value of each row, `[B, V]` to `[B]`.

    The k largest lie in the k blocks of columns with the largest maxima: one fast pass for the maxima, then a search
    among k blocks and the columns left over.

    Raises:
        ValueError: k is not between 1 and V.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k must be between 1 and {scores.shape[1]}, not {k}")
    blocks = scores.shape[1] // COLUMNS_AT_ONCE
    if blocks > 2 * k:
        blocked = scores[:, : blocks * COLUMNS_AT_ONCE].view(len(scores), blocks, COLUMNS_AT_ONCE)
        best = blocked.amax(dim=2).topk(k, dim=1, sorted=False).indices
        chosen = blocked[torch.arange(len(scores), device=scores.device).unsqueeze(1), best].flatten(1)
        scores = torch.cat([chosen, scores[:, blocks * COLUMNS_AT_ONCE :]], dim=1)
    return scores.topk(k, dim=1).values[:, -1]


def combine(
    *,
    position: Tensor,
    confidence: Tensor,
    consistency: Tensor | None,
    gamma_position: float,
    gamma_confidence: float,
    gamma_consistency: float,
    renormalise: bool,
) -> Tensor:
    """Combine the weights (eq. 10): ``gamma_p w^p + gamma_c w^c + gamma_o w^o``.

    Args:
        position: `[B, K]` or anything that broadcasts to it, as the other two.
        confidence: one a sequence, `[B, 1]`, or one an item, `[B, K]`.
        consistency: `[B, K]`, or None where ``gamma_consistency`` is 0.
        gamma_position: share of the position.
        gamma_confidence: share of the confidence.
        gamma_consistency: share of the consistency.
        renormalise: make each list sum to 1 afterwards, as the authors' code does; a list of zeros stays.

    Returns:
        `[B, K]`.
    """
    weights = gamma_position * position + gamma_confidence * confidence
    if consistency is not None:
        weights = weights + gamma_consistency * consistency
    return F.normalize(weights, p=1.0, dim=-1) if renormalise else weights

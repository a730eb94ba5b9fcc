"""The distributionally robust term (Yang et al. 2023), as Cui et al. 2024 use it for the student DROS.

With scores ``s``, weights ``p_j = ((pop_j + 1) / sum_k (pop_k + 1)) ** 0.05`` and a target y the term of an example is

    log[ sum_j exp(p_j s_j^2 / beta) - exp(p_y s_y^2 / beta) + exp(p_y (s_y - 1)^2 / beta) ].

Written so, it overflows at scores around 13. Here the sum over the catalogue is a log-sum-exp T that subtracts the
largest exponent, made once for all items that take the place of the target, and the term is

    logaddexp(T + log(1 - exp(p_y s_y^2 / beta - T)), p_y (s_y - 1)^2 / beta).

Where item y is almost all of the sum, 1 - exp(...) cancels; in those examples, which are few, the sum is made anew
without y.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.autograd.function import once_differentiable

from dllm2rec.core.settings import Settings
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer, shared
from dllm2rec.losses.bce import Reduction, binary_cross_entropy
from dllm2rec.losses.checks import require_scores
from dllm2rec.losses.negatives import score_with_negatives

POPULARITY_EXPONENT = 0.05
CANCELS_ABOVE = 0.9
ROWS_AT_ONCE = 16


class DROSSettings(Settings):
    """Binary cross-entropy plus ``alpha`` times the robust term.

    Attributes:
        negatives: how many sampled items for each target.
        reduction: `sum` or `mean` of the terms of an example in the cross-entropy.
        alpha: weight of the robust term.
        beta: its temperature.
    """

    kind: Literal["dros"] = "dros"
    negatives: PositiveInt = 1
    reduction: Reduction = "sum"
    alpha: Annotated[float, Field(ge=0)] = 0.5
    beta: PositiveFloat = 1.0


class RobustTerm:
    """The robust term of examples, for any item in the place of the target.

    Args:
        popularity: `[V]`, how often each item occurs in training.
        beta: temperature.

    Raises:
        ValueError: the popularity is empty, misshapen, negative or not finite, or ``beta`` is not positive.
    """

    def __init__(self, *, popularity: Tensor, beta: float) -> None:
        if beta <= 0.0:
            raise ValueError(f"beta must be above 0, not {beta}")
        self.scale = popularity_weights(popularity) / beta

    def __call__(self, scorer: Scorer, hidden: Tensor, items: Tensor, chosen: Tensor) -> Tensor:
        """Return the term of each example with each of its items, `[B, K]`.

        The sum over the catalogue is shared among all calls of a step (see `SharedScorer`).

        Args:
            scorer: the student.
            hidden: its sequence vectors `[B, D]`.
            items: `[B, K]`.
            chosen: their scores, `[B, K]`.
        """
        scale = self.scale.to(hidden.device, hidden.dtype)
        scores = scorer.scores(hidden)
        total = shared(scorer, hidden, self, lambda: log_sum_exp_squares(scores, scale))
        return robust_terms(scores, items, scale, chosen=chosen, total=total)


class DROSLoss:
    """Binary cross-entropy plus ``alpha`` times the mean robust term of the targets.

    Args:
        robust: the robust term.
        alpha: its weight.
        negatives, reduction: of the cross-entropy, see `BCESettings`.
    """

    def __init__(self, *, robust: RobustTerm, alpha: float, negatives: int = 1, reduction: Reduction = "sum") -> None:
        self.robust = robust
        self.alpha = alpha
        self.negatives = negatives
        self.reduction: Reduction = reduction

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        scores = score_with_negatives(scorer, hidden, batch, count=self.negatives, generator=generator)
        loss = binary_cross_entropy(scores[:, 0], scores[:, 1:], reduction=self.reduction)
        if self.alpha == 0.0:
            return loss
        return loss + self.alpha * self.robust(scorer, hidden, batch.target.unsqueeze(1), scores[:, :1]).mean()


def popularity_weights(popularity: Tensor) -> Tensor:
    """``p_i = ((pop_i + 1) / sum_k (pop_k + 1)) ** 0.05`` from training counts `[V]`; returns float32 `[V]`.

    Raises:
        ValueError: empty, not a vector, or a count that is negative or not finite.
    """
    require_scores("popularity", popularity, (None,))
    if bool((popularity < 0).any()):
        raise ValueError("popularity must not be negative")
    counts = popularity.to(torch.float64) + 1.0
    return (counts / counts.sum()).pow(POPULARITY_EXPONENT).to(torch.float32)


def robust_terms(scores: Tensor, items: Tensor, scale: Tensor, *, chosen: Tensor, total: Tensor) -> Tensor:
    """Return the robust term of each example with each of its ``items`` in the place of the target.

    Args:
        scores: `[B, V]`.
        items: `[B, K]`.
        scale: `[V]`, ``p_j / beta``.
        chosen: `[B, K]`, the scores of the items.
        total: `[B]`, the sum over the catalogue, from `log_sum_exp_squares`.

    Returns:
        `[B, K]`: ``log[ sum_{j != i} exp(scale_j s_j^2) + exp(scale_i (s_i - 1)^2) ]``.

    Raises:
        ValueError: empty, misshapen or non-finite scores.
    """
    require_scores("items", items, (len(scores), None))
    require_scores("chosen", chosen, (len(scores), items.shape[1]))
    own, whole = scale[items], total.unsqueeze(1)
    share = torch.exp(own * chosen.square() - whole)
    cancels = share.detach() > CANCELS_ABOVE
    moved = own * (chosen - 1).square()
    terms = torch.logaddexp(whole + torch.log1p(-share.masked_fill(cancels, 0.0)), moved)
    require_scores("the robust term of these scores", terms, (len(items), None))
    if not bool(cancels.any()):
        return terms
    row, place = cancels.nonzero(as_tuple=True)
    rest = log_sum_exp_squares(scores[row], scale, left_out=items[row, place])
    return terms.index_put((row, place), torch.logaddexp(rest, moved[row, place]))


def log_sum_exp_squares(scores: Tensor, scale: Tensor, *, left_out: Tensor | None = None) -> Tensor:
    """Return ``log sum_j exp(scale_j s_j^2)``, `[B, V]` to `[B]`.

    Args:
        scores: `[B, V]`.
        scale: `[V]`.
        left_out: `[B]`, one item for each example that its sum is without, or None.
    """
    require_scores("scale", scale, (scores.shape[1],))
    total: Tensor = _LogSumExpSquares.apply(scores, scale, left_out)
    return total


class _LogSumExpSquares(torch.autograd.Function):
    """Written by hand because the matrix `[B, V]` is where the time goes.

    A few rows at a time go through all steps, so that they stay in the processor's cache, and the gradient is made on
    the way forward, in the place of the softmax that it needs anyway. The way back scales it where it lies, so it can
    be gone only once; autograd refuses a second time.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: Tensor, left_out: Tensor | None) -> Tensor:
        """Return `[B]` for scores `[B, V]`, scale `[V]` and items to leave out, `[B]` or None."""
        largest, total = scores.new_empty(len(scores), 1), scores.new_empty(len(scores), 1)
        slope, buffer = torch.empty_like(scores), torch.empty_like(scores[:ROWS_AT_ONCE])
        for start in range(0, len(scores), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            scaled = torch.mul(scores[rows], scale, out=buffer[: len(scores[rows])])
            exponents = torch.mul(scaled, scores[rows], out=slope[rows])
            if left_out is not None:
                exponents.scatter_(1, left_out[rows].unsqueeze(1), -torch.inf)
            # of squares: below 0 only if no item is left
            torch.clamp(exponents.amax(dim=1, keepdim=True), min=0.0, out=largest[rows])
            torch.sum(exponents.sub_(largest[rows]).exp_(), dim=1, keepdim=True, out=total[rows])
            exponents.mul_(scaled)
        ctx.save_for_backward(slope, total)
        return (largest + total.log()).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the scores: ``2 scale_j s_j`` times the softmax weight of j."""
        slope, total = ctx.saved_tensors
        return slope.mul_(torch.where(total > 0, 2 * grads[0].unsqueeze(1) / total, 0.0)), None, None

"""The distributionally robust term (Yang et al. 2023), as Cui et al. 2024 use it for the student DROS.

With scores ``s``, weights ``p_j = ((pop_j + 1) / sum_k (pop_k + 1)) ** 0.05`` and a target y the term of an example is

    log[ sum_j exp(p_j s_j^2 / beta) - exp(p_y s_y^2 / beta) + exp(p_y (s_y - 1)^2 / beta) ].

Written so, it overflows at scores around 10, and the difference cancels where the target dominates the sum. But the
difference is only the sum without y. So the sum is taken over the other items in the first place, as a log-sum-exp that
subtracts the largest exponent, and the last summand joins it by ``logaddexp``: nothing overflows, nothing cancels.
For K items of an example one pass over the catalogue leaves all K out; each of the K terms takes K - 1 of them back.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.bce import BCELoss, Reduction
from dllm2rec.losses.checks import require_scores

POPULARITY_EXPONENT = 0.05
ROWS_AT_ONCE = 16


class DROSSettings(BaseModel):
    """Binary cross-entropy plus ``alpha`` times the robust term.

    Attributes:
        negatives, reduction: of the cross-entropy, see `BCESettings`.
        alpha: weight of the robust term.
        beta: its temperature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dros"] = "dros"
    negatives: PositiveInt = 1
    reduction: Reduction = "sum"
    alpha: Annotated[float, Field(ge=0)] = 0.5
    beta: PositiveFloat = 1.0


class DROSLoss:
    """Binary cross-entropy plus ``alpha`` times the mean robust term of the targets.

    Args:
        popularity: `[V]`, how often each item occurs in training.
        negatives, reduction: of the cross-entropy, see `BCESettings`.
        alpha: weight of the robust term.
        beta: its temperature.
    """

    def __init__(
        self, *, popularity: Tensor, negatives: int = 1, reduction: Reduction = "sum", alpha: float, beta: float
    ) -> None:
        self.base = BCELoss(negatives=negatives, reduction=reduction)
        self.alpha = alpha
        self.scale = popularity_weights(popularity) / beta

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        loss = self.base(scorer, hidden, batch, generator)
        if self.alpha == 0.0:
            return loss
        terms = robust_terms(scorer.scores(hidden), batch.target.unsqueeze(1), self.scale)
        return loss + self.alpha * terms.mean()


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


def robust_terms(scores: Tensor, items: Tensor, scale: Tensor) -> Tensor:
    """Return the robust term of each example with each of its ``items`` in the place of the target.

    Args:
        scores: `[B, V]`.
        items: `[B, K]`, different items within a row.
        scale: `[V]`, ``p_j / beta``.

    Returns:
        `[B, K]`: ``log[ sum_{j != i} exp(scale_j s_j^2) + exp(scale_i (s_i - 1)^2) ]``.

    Raises:
        ValueError: empty, misshapen or non-finite scores.
    """
    require_scores("scale", scale, (None,))
    require_scores("items", items, (len(scores), None))
    scale = scale.to(scores.device, scores.dtype)
    rest: Tensor = _LogSumExpSquares.apply(scores, items, scale)
    chosen, own = scores.gather(1, items), scale[items]
    moved = torch.logaddexp(rest.unsqueeze(1), own * (chosen - 1).square())
    if items.shape[1] > 1:
        moved = torch.logaddexp(moved, _other_squares(own * chosen.square()))
    require_scores("the robust term of these scores", moved, (len(items), None))
    return moved


def _other_squares(exponents: Tensor) -> Tensor:
    """Return ``log sum_{k != i} exp(exponents_k)`` for each i, `[B, K]` to `[B, K]`."""
    count = exponents.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=exponents.device)
    return torch.logsumexp(exponents.unsqueeze(1).expand(-1, count, -1).masked_fill(itself, -torch.inf), dim=2)


class _LogSumExpSquares(torch.autograd.Function):
    """``log sum_j exp(scale_j s_j^2)`` over the items that are not left out, a few rows at a time.

    Written by hand because the matrix `[B, V]` is far larger than the processor's cache: taking a few rows through all
    steps before the next ones is several times faster than one step after the other over the whole matrix.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, left_out: Tensor, scale: Tensor) -> Tensor:
        """Return `[B]` for scores `[B, V]`, items to leave out `[B, K]` and scale `[V]`."""
        result = scores.new_empty(len(scores))
        buffer = torch.empty_like(scores[:ROWS_AT_ONCE])
        for start in range(0, len(scores), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            exponents = _exponents(scores[rows], left_out[rows], scale, buffer)
            largest = exponents.amax(dim=1).clamp_(min=0.0)  # squares: less than 0 only if no item is left
            total = exponents.sub_(largest.unsqueeze(1)).exp_().sum(dim=1)
            torch.add(largest, total.log(), out=result[rows])
        ctx.save_for_backward(scores, left_out, scale, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the scores: ``2 scale_j s_j`` times the softmax weight of j."""
        scores, left_out, scale, result = ctx.saved_tensors
        gradient = torch.empty_like(scores)
        twice = 2 * scale
        for start in range(0, len(scores), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            exponents = _exponents(scores[rows], left_out[rows], scale, gradient[rows])
            weights = exponents.sub_(result[rows].clamp(min=0.0).unsqueeze(1)).exp_()
            weights.mul_(scores[rows]).mul_(twice).mul_(grads[0][rows].unsqueeze(1))
        return gradient, None, None


def _exponents(scores: Tensor, left_out: Tensor, scale: Tensor, buffer: Tensor) -> Tensor:
    exponents = torch.mul(scores, scores, out=buffer[: len(scores)]).mul_(scale)
    return exponents.scatter_(1, left_out, -torch.inf)

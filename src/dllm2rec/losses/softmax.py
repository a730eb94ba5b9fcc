"""Cross-entropy over a softmax of the catalogue, without ever holding a score for every example and every item."""

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.autograd.function import once_differentiable

from dllm2rec.core.settings import Settings
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores, times

Candidates = Literal["all", "seen", "available"]
LeaveHistory = bool | Literal["ever"]


class SoftmaxSettings(Settings):
    """Full softmax.

    Attributes:
        candidates: `all` items compete with the target, or only those `seen` in training. With a tied output over text
            vectors `seen` is what lets items without interactions be recommended: training never pushes them down.
            `available` are those seen by the time of the example: an item that came last month was no alternative to
            what was chosen last year, and need not be pushed down for it.
        leave_history: leave the items of a history out of its softmax, but never the target, so that what was just
            chosen need not be pushed away from what is like it; `ever`: all that the user chose before, and not only
            what is read. None: `ever` where choosing an item again is rare among the training examples; else as far as
            they read where that is so of what they read; else nothing.
        scores_at_once: most scores in memory; examples are taken in as many parts as that needs, one example at least.
    """

    kind: Literal["softmax"] = "softmax"
    candidates: Candidates = "all"
    leave_history: LeaveHistory | None = False
    scores_at_once: PositiveInt = 4_000_000


class SoftmaxLoss:
    """``-log softmax(scores)[target]``, averaged over the batch.

    Args:
        popularity: `[V]`, how often each item occurs in training; not used for `all`.
        candidates: see `SoftmaxSettings`.
        leave_history: whether items of a history are left out of its softmax, or all that was ever chosen.
        scores_at_once: see `SoftmaxSettings`.
        since: `[V]`, when training first has each item, in the unit of `Batch.time`; only used for `available`.
    """

    def __init__(
        self,
        *,
        popularity: Tensor,
        candidates: Candidates = "all",
        leave_history: LeaveHistory = False,
        scores_at_once: int = 4_000_000,
        since: Tensor | None = None,
    ) -> None:
        self.leave_history = leave_history
        self.scores_at_once = scores_at_once
        self.num_items = len(popularity)
        self.competing: Tensor | None = None
        self.since: Tensor | None = None
        if candidates == "available":
            if since is None:
                raise ValueError("which items are available follows from since when they are; give that")
            self.since = since
        if candidates != "all":
            self.competing = popularity.nonzero().squeeze(1)
            if self.since is not None:  # in the order in which they came: what is available comes first
                self.competing = self.competing[torch.argsort(self.since[self.competing], stable=True)]
            self._place = torch.full_like(popularity, -1, dtype=torch.long)
            self._place[self.competing] = torch.arange(len(self.competing))

    @property
    def competes(self) -> Tensor | None:
        """Bool `[V]`, which items the softmax is over; None means all."""
        return None if self.competing is None else self._place >= 0

    def __call__(
        self,
        scorer: Scorer,
        hidden: Tensor,
        batch: Batch,
        generator: torch.Generator,  # noqa: ARG002 - the protocol has it, nothing is drawn
    ) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        weight, bias = scorer.output_matrix()
        target = batch.target
        excluded = self._excluded(batch)
        if self.competing is not None:
            target = self._place.to(target.device)[target]
            if bool((target < 0).any()):
                raise ValueError("a target is not among the items that compete")
            competing = self.competing.to(weight.device)
            weight, bias = weight[competing], None if bias is None else bias[competing]
        return softmax_cross_entropy(
            hidden,
            weight,
            target,
            bias=bias,
            excluded=excluded,
            available=self._available(batch),
            scores_at_once=self.scores_at_once,
        )

    def _excluded(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return what each sum leaves out, see `softmax_cross_entropy`."""
        if not self.leave_history:
            return None
        past = batch.past if self.leave_history == "ever" else None
        if past is None:
            row, place = (batch.history != self.num_items).nonzero(as_tuple=True)
            past = row, batch.history[row, place]
        row, item = (one.to(batch.target.device) for one in past)
        if self.competing is None:
            return row, item
        column = self._place.to(item.device)[item]
        return row[column >= 0], column[column >= 0]

    def _available(self, batch: Batch) -> Tensor | None:
        """Count the items that compete for each example, `[B]`; None where all do."""
        if self.since is None or self.competing is None:
            return None
        there = torch.searchsorted(self.since[self.competing], times(batch), right=True)
        return there.to(batch.target.device)


def softmax_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
    available: Tensor | None = None,
    scores_at_once: int = 4_000_000,
) -> Tensor:
    """``mean_b ( log sum_j exp(s_bj) - s_b,target )`` with ``s = hidden @ weight.T + bias``.

    The gradients come out of the same pass as the loss, a few examples at a time: of a part's scores nothing is kept,
    and each is exponentiated once. So memory does not grow with the batch, and a second derivative can't be had.

    Args:
        hidden: `[B, D]`.
        weight: `[V, D]`, the items that compete.
        target: `[B]`, rows of ``weight``.
        bias: `[V]`, or None.
        excluded: what is left out of a sum, but never the target: rows of ``hidden`` in ascending order, and of
            ``weight``, `[P]` each.
        available: `[B]`, how many rows of ``weight``, from the first, are in each example's sum; the target always is.
        scores_at_once: most scores in memory, if that is enough for one example.

    Raises:
        ValueError: empty, misshapen or non-finite input.
    """
    require_scores("hidden", hidden, (len(target), None))
    require_scores("weight", weight, (None, hidden.shape[1]))
    if bias is not None:
        require_scores("bias", bias, (len(weight),))
    rows = max(1, scores_at_once // len(weight))
    none = target.new_empty(0)
    loss: Tensor = _CrossEntropy.apply(hidden, weight, bias, target, *(excluded or (none, none)), available, rows)
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions know no names
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        excluded_row: Tensor,
        excluded: Tensor,
        available: Tensor | None,
        rows: int,
    ) -> Tensor:
        """Return the loss and keep its gradients."""
        slope_hidden, slope_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        slope_bias = None if bias is None else torch.zeros_like(bias)
        buffer = hidden.new_empty(min(rows, len(hidden)), len(weight))
        place = torch.arange(len(weight), device=hidden.device)
        loss = hidden.new_zeros(())
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            scores = torch.mm(hidden[part], weight.T, out=buffer[: len(hidden[part])])
            if bias is not None:
                scores += bias
            own = target[part].unsqueeze(1)
            kept = scores.gather(1, own)
            begin, end = torch.searchsorted(excluded_row, excluded_row.new_tensor([start, start + rows])).tolist()
            scores[excluded_row[begin:end] - start, excluded[begin:end]] = -torch.inf
            if available is not None:
                scores.masked_fill_(place >= available[part].unsqueeze(1), -torch.inf)
            scores.scatter_(1, own, kept)
            loss += _to_slopes(scores, own)
            scores /= len(hidden)
            torch.mm(scores, weight, out=slope_hidden[part])
            slope_weight.addmm_(scores.T, hidden[part])
            if slope_bias is not None:
                slope_bias += scores.sum(dim=0)
        ctx.save_for_backward(slope_hidden, slope_weight, slope_bias)
        return loss / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that `forward` computed."""
        hidden, weight, bias = ctx.saved_tensors
        slopes = hidden * grads[0], weight * grads[0], None if bias is None else bias * grads[0]
        return *slopes, None, None, None, None, None


def _to_slopes(scores: Tensor, target: Tensor) -> Tensor:
    """Turn scores `[B, V]` in place into ``softmax - onehot``; returns the summed loss."""
    own = scores.gather(1, target)
    largest = scores.amax(dim=1, keepdim=True)
    total = scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
    scores.div_(total).scatter_add_(1, target, torch.full_like(own, -1.0))
    return (total.log() + largest - own).sum()

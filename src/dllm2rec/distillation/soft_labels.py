"""Soft labels: the teacher's whole ranking beside the true next item, as shares of one softmax (Hinton et al. 2015)."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor

from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Encoder
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import times


class SoftLabelSettings(BaseModel):
    """Soft labels from a teacher's rankings.

    Attributes:
        weight: share of the label that the teacher writes; the rest stays on the true next item.
        temperature: of the teacher's distances, in their unit. None: the one under which the true next items of the
            labelled training examples are likeliest, so that the teacher is as sure as it is right; see
            `likeliest_temperature`. A teacher that was fitted to those very examples is surer than right: label them
            out of fold.
        top_k: K, how many of the teacher's items share in a label; where it lists fewer, all of them.
        embedding: whether the student also reads the teacher's item vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["soft-labels"] = "soft-labels"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat | None = None
    top_k: PositiveInt = 50
    embedding: bool = True


class SoftLabelDistiller:
    """Moves a share of each label from the true next item to the teacher's items.

    With the base loss ``log sum_j exp(s_j) - s_y`` and the teacher's shares q, the cross-entropy with the mixed label
    ``(1 - w) onehot(y) + w q`` is the base loss plus ``w (s_y - sum_k q_k s_k)``. So the term needs no scores but those
    of K + 1 items, and the catalogue is gone through once. That holds for a base loss that is a softmax only, and for
    items that compete in it: others have no share, or their scores would rise without bound.

    Args:
        ranked_items: `[N, K or more]`, the teacher's lists.
        distances: `[N, K or more]`, of the listed items; smaller is better.
        label_row: `[M]`, for each training example its row among the N, or -1.
        temperature: see `SoftLabelSettings`.
        weight: see `SoftLabelSettings`.
        top_k: see `SoftLabelSettings`.
        competes: bool `[V]`, which items the base loss's softmax is over; None means all.
        leave_history: whether that softmax leaves the items of a history out.
        since: `[V]`, when each item came, where only those that were there by the time of an example compete.
    """

    def __init__(
        self,
        *,
        ranked_items: Tensor,
        distances: Tensor,
        label_row: Tensor,
        temperature: float,
        weight: float,
        top_k: int,
        competes: Tensor | None = None,
        leave_history: bool = False,
        since: Tensor | None = None,
    ) -> None:
        self.items = ranked_items[:, :top_k]
        logits = -distances[:, :top_k] / temperature
        if competes is not None:
            logits = logits.masked_fill(~competes[self.items.to(torch.long)], -torch.inf)
        self.shares = torch.softmax(logits, dim=1).nan_to_num(nan=0.0)  # where nothing competes, nothing is taught
        self.label_row = label_row
        self.weight = weight
        self.leave_history = leave_history
        self.since = since

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        """Nothing is prepared."""

    def __call__(
        self,
        scorer: Scorer,
        hidden: Tensor,
        batch: Batch,
        generator: torch.Generator,  # noqa: ARG002 - the protocol has it, nothing is drawn
    ) -> Tensor:
        """Return ``w (s_y - sum_k q_k s_k)``, summed over labelled examples and divided by the size of the batch."""
        row = self.label_row[batch.row.cpu()]
        labelled = (row >= 0).nonzero().squeeze(1)
        if self.weight == 0.0 or not len(labelled):
            return hidden.new_zeros(())
        row = row[labelled]
        listed = self.items[row].to(hidden.device, torch.long)
        items = torch.cat([batch.target[labelled].unsqueeze(1), listed], dim=1)
        scores = scorer.score_items(hidden[labelled], items)
        shares = self.shares[row].to(hidden)
        history = batch.history[labelled] if self.leave_history else None
        later = None if self.since is None else self.since[items[:, 1:].cpu()] > times(batch)[labelled.cpu(), None]
        if history is not None or later is not None:
            shares = without(shares, competes_not(items[:, 1:], target=items[:, :1], history=history, later=later))
        gain = scores[:, 0] * shares.sum(dim=1) - (shares * scores[:, 1:]).sum(dim=1)
        return self.weight * gain.sum() / len(hidden)


def competes_not(items: Tensor, *, target: Tensor, history: Tensor | None, later: Tensor | None) -> Tensor:
    """Say which items are not in the softmax of an example, bool `[B, K]`.

    Args:
        items: `[B, K]`.
        target: `[B, 1]`, which always is.
        history: `[B, L]`, whose items are left out, or None.
        later: bool `[B, K]`, which items came after the example, or None.
    """
    absent = torch.zeros_like(items, dtype=torch.bool) if later is None else later.to(items.device)
    if history is not None:
        absent = absent | (items.unsqueeze(2) == history.unsqueeze(1)).any(dim=2)
    return absent & (items != target)


def without(shares: Tensor, absent: Tensor) -> Tensor:
    """Take the shares `[B, K]` of absent items away; what is left, if anything, is scaled to the sum that there was."""
    left = shares.masked_fill(absent, 0.0)
    total = left.sum(dim=1, keepdim=True)
    return left * torch.where(total > 0, shares.sum(dim=1, keepdim=True) / total, 0.0)

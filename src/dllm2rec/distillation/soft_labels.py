"""Soft labels: the teacher's whole ranking beside the true next item, as shares of one softmax (Hinton et al. 2015)."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor

from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Encoder
from dllm2rec.losses.base import Scorer


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
    ) -> None:
        self.items = ranked_items[:, :top_k].to(torch.long)
        logits = -distances[:, :top_k] / temperature
        if competes is not None:
            logits = logits.masked_fill(~competes[self.items], -torch.inf)
        self.shares = torch.softmax(logits, dim=1).nan_to_num(nan=0.0)  # where nothing competes, nothing is taught
        self.label_row = label_row
        self.weight = weight
        self.leave_history = leave_history

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
        items = torch.cat([batch.target[labelled].unsqueeze(1), self.items[row].to(hidden.device)], dim=1)
        scores = scorer.score_items(hidden[labelled], items)
        shares = self.shares[row].to(hidden)
        if self.leave_history:
            shares = without(shares, items[:, 1:], batch.history[labelled], target=items[:, :1])
        gain = scores[:, 0] * shares.sum(dim=1) - (shares * scores[:, 1:]).sum(dim=1)
        return self.weight * gain.sum() / len(hidden)


def without(shares: Tensor, items: Tensor, history: Tensor, *, target: Tensor) -> Tensor:
    """Take the shares `[B, K]` of items `[B, K]` that a history `[B, L]` holds away, but the target's `[B, 1]`.

    What is left is scaled to the sum that there was; where nothing is left, nothing is.
    """
    repeated = (items.unsqueeze(2) == history.unsqueeze(1)).any(dim=2) & (items != target)
    left = shares.masked_fill(repeated, 0.0)
    total = left.sum(dim=1, keepdim=True)
    return left * torch.where(total > 0, shares.sum(dim=1, keepdim=True) / total, 0.0)

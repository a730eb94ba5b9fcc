"""Soft labels: the teacher's whole ranking beside the true next item, as shares of one softmax (Hinton et al. 2015)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from dllm2rec.core.arrays import evenly
from dllm2rec.core.settings import Settings
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.knowledge.confidence import likeliest_temperature
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.softmax import SoftmaxLoss

CALIBRATED = 200_000
"""Most labels that a temperature is found with."""


class SoftLabelSettings(Settings):
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

    kind: Literal["soft-labels"] = "soft-labels"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat | None = None
    top_k: PositiveInt = 50
    embedding: bool = True


class SoftLabelDistiller(ListDistiller):
    """Moves a share of each label from the true next item to the teacher's items.

    With the base loss ``log sum_j exp(s_j) - s_y`` and the teacher's shares q, the cross-entropy with the mixed label
    ``(1 - w) onehot(y) + w q`` is the base loss plus ``w (s_y - sum_k q_k s_k)``. So the term needs no scores but those
    of K + 1 items, and the catalogue is gone through once. That holds for a base loss that is a softmax only, and for
    items that compete in it: others have no share, or their scores would rise without bound.

    Args:
        lessons: lists of `top_k` items or fewer.
        settings: see there.
        loss: the base loss.
    """

    def __init__(self, *, lessons: Lessons, settings: SoftLabelSettings, loss: SoftmaxLoss) -> None:
        super().__init__(lessons=lessons, weight=settings.weight)
        absent = absent_items(lessons, loss)
        competes = torch.ones(()).bool() if loss.competes is None else loss.competes[lessons.ranked_items.long()]
        logits = -lessons.distances / (settings.temperature or fit_temperature(lessons, absent | ~competes))
        logits = logits.masked_fill(~competes, -torch.inf)
        shares = torch.softmax(logits, dim=1).nan_to_num(nan=0.0)  # where nothing competes, nothing is taught
        self.shares = without(shares, absent)

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return ``s_y - sum_k q_k s_k`` of each labelled example, `[n]`."""
        target = step.target.unsqueeze(1)
        listed = self.lessons.ranked_items[step.place].to(hidden.device, torch.long)
        scores = scorer.score_items(hidden, torch.cat([target, listed], dim=1))
        shares = self.shares[step.place].to(hidden)
        return scores[:, 0] * shares.sum(dim=1) - (shares * scores[:, 1:]).sum(dim=1)


def absent_items(lessons: Lessons, loss: SoftmaxLoss) -> Tensor:
    """Say which listed items the softmax of their example leaves out, never its target, bool `[P, M]`."""
    items = lessons.ranked_items
    absent = torch.zeros_like(items, dtype=torch.bool)
    if loss.leave_history == "ever" and lessons.past is not None:
        absent |= torch.from_numpy(lessons.past.holds(items.numpy()))
    elif loss.leave_history:
        for older in lessons.history.T:
            absent |= items == older.unsqueeze(1)
    if loss.since is not None:
        absent |= loss.since[items.long()] > lessons.time.unsqueeze(1)
    return absent & (items != lessons.target.unsqueeze(1))


def fit_temperature(lessons: Lessons, absent: Tensor) -> float:
    """Find the likeliest temperature of lists `[P, M]` without what is not taught; see `likeliest_temperature`."""
    some = evenly(CALIBRATED, len(lessons))
    items, target = lessons.ranked_items[some], lessons.target[some]
    return likeliest_temperature(
        ranked_items=items.numpy(),
        distances=lessons.distances[some].masked_fill(absent[some], torch.inf).numpy(),
        target=target.numpy(),
        num_items=lessons.num_items,
    )


def without(shares: Tensor, absent: Tensor) -> Tensor:
    """Take the shares `[B, K]` of absent items away; what is left, if anything, is scaled to the sum that there was."""
    left = shares.masked_fill(absent, 0.0)
    total = left.sum(dim=1, keepdim=True)
    return left * torch.where(total > 0, shares.sum(dim=1, keepdim=True) / total, 0.0)

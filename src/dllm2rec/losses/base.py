"""What a loss sees of a student, and what a loss is."""

from typing import Protocol

import torch
from torch import Tensor

from dllm2rec.data.batches import Batch


class Scorer(Protocol):
    """Something that scores items for sequence vectors; every student is one."""

    @property
    def num_items(self) -> int:
        """V."""

    def scores(self, hidden: Tensor) -> Tensor:
        """Score every item, `[B, D]` to `[B, V]`."""

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the items `[B, K]` for sequence vectors `[B, D]`; returns `[B, K]`."""


class Loss(Protocol):
    """A recommendation loss."""

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch as a scalar.

        Args:
            scorer: the student.
            hidden: its sequence vectors `[B, D]` for the batch.
            batch: histories and targets.
            generator: draws what is drawn, such as negatives.
        """


class SharedScorer:
    """A scorer for one training step, which computes the scores of the whole catalogue at most once.

    The losses of one step see the same sequence vectors; those that need every score share one matrix `[B, V]` and its
    one backward pass.

    Args:
        scorer: the student.
        hidden: the sequence vectors `[B, D]` of the step; other vectors are scored as ever.
    """

    def __init__(self, scorer: Scorer, hidden: Tensor) -> None:
        self._scorer = scorer
        self._hidden = hidden
        self._scores: Tensor | None = None

    @property
    def num_items(self) -> int:
        """V."""
        return self._scorer.num_items

    def scores(self, hidden: Tensor) -> Tensor:
        """Score every item, `[B, D]` to `[B, V]`."""
        if hidden is not self._hidden:
            return self._scorer.scores(hidden)
        if self._scores is not None:
            return self._scores
        scores = self._scorer.scores(hidden)
        if torch.is_grad_enabled():  # a matrix without gradient would starve a later loss
            self._scores = scores
        return scores

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the items `[B, K]` for sequence vectors `[B, D]`; returns `[B, K]`."""
        return self._scorer.score_items(hidden, items)

"""What a loss sees of a student, and what a loss is."""

from collections.abc import Callable
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

    def score_shared(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the same items `[S]` for all sequence vectors `[B, D]`; returns `[B, S]`."""

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return what scores are made of: weights `[V, D]` and biases `[V]` (None: no bias)."""

    def embed(self, items: Tensor) -> Tensor:
        """Embed items as histories see them, `[...]` to `[..., D]`."""


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
    """A scorer for one training step, which computes what several losses need of the whole catalogue only once.

    The losses of one step see the same sequence vectors; those that need every score share one matrix `[B, V]` and its
    one backward pass.

    Args:
        scorer: the student.
        hidden: the sequence vectors `[B, D]` of the step; other vectors are scored as ever.
    """

    def __init__(self, scorer: Scorer, hidden: Tensor) -> None:
        self._scorer = scorer
        self._hidden = hidden
        self._known: dict[object, Tensor] = {}

    @property
    def num_items(self) -> int:
        """V."""
        return self._scorer.num_items

    def scores(self, hidden: Tensor) -> Tensor:
        """Score every item, `[B, D]` to `[B, V]`."""
        return self.share(hidden, "scores", lambda: self._scorer.scores(hidden))

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the items `[B, K]` for sequence vectors `[B, D]`; returns `[B, K]`."""
        return self._scorer.score_items(hidden, items)

    def score_shared(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the same items `[S]` for all sequence vectors `[B, D]`; returns `[B, S]`."""
        return self._scorer.score_shared(hidden, items)

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return what scores are made of: weights `[V, D]` and biases `[V]` (None: no bias)."""
        return self._scorer.output_matrix()

    def embed(self, items: Tensor) -> Tensor:
        """Embed items as histories see them, `[...]` to `[..., D]`."""
        return self._scorer.embed(items)

    def share(self, hidden: Tensor, key: object, compute: Callable[[], Tensor]) -> Tensor:
        """Return what was computed under ``key`` in this step, or compute it.

        Nothing is kept of other sequence vectors than the step's, nor of a computation without gradient, which would
        starve a later loss.
        """
        if hidden is not self._hidden:
            return compute()
        if key in self._known:
            return self._known[key]
        value = compute()
        if torch.is_grad_enabled():
            self._known[key] = value
        return value


def shared(scorer: Scorer, hidden: Tensor, key: object, compute: Callable[[], Tensor]) -> Tensor:
    """Compute something of a step's sequence vectors, once if the scorer is one for the step."""
    return scorer.share(hidden, key, compute) if isinstance(scorer, SharedScorer) else compute()

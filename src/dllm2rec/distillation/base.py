"""What a distiller is."""

from typing import Protocol

import torch
from torch import Tensor

from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer


class Distiller(Protocol):
    """A term that a teacher adds to the loss of a student. It never owns the student."""

    def epoch(self, scorer: Scorer, generator: torch.Generator) -> None:
        """Prepare for an epoch; a method that samples anew does so here."""

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the term of a batch as a scalar, already multiplied by its weight.

        Args:
            scorer: the student.
            hidden: its sequence vectors `[B, D]` for the batch.
            batch: histories, targets and rows in the training examples.
            generator: draws what is drawn.
        """

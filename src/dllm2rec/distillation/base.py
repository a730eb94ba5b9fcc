"""What a distiller is."""

from typing import Protocol

import torch
from torch import Tensor

from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer


class Encoder(Scorer, Protocol):
    """A scorer that also turns histories into sequence vectors; every student is one."""

    def encode(self, history: Tensor) -> Tensor:
        """Turn histories `[B, L]`, padded on the left with V, into sequence vectors `[B, D]`."""


class Distiller(Protocol):
    """A term that a teacher adds to the loss of a student. It never owns the student.

    A distiller with weights of its own is a `torch.nn.Module`: they are trained beside the student's and lie in the
    checkpoint, but never in the student. Anything else that a distiller remembers from one epoch to the next would be
    lost when a run is resumed: what `epoch` prepares follows from its arguments alone.
    """

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        """Prepare for an epoch; a method that samples anew does so here.

        Args:
            student: as the last epoch left it, without dropout.
            number: of the epoch, from 1.
            generator: draws what is drawn.
        """

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the term of a batch as a scalar, already multiplied by its weight.

        Args:
            scorer: the student.
            hidden: its sequence vectors `[B, D]` for the batch.
            batch: histories, targets and rows in the training examples.
            generator: draws what is drawn.
        """

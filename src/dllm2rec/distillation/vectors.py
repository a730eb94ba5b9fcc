"""What the methods on a teacher's item vectors share: which items a step looks at, and the networks between spaces."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Encoder
from dllm2rec.losses.base import Scorer


class VectorDistiller(nn.Module, ABC):
    """``lambda_d / B`` times a loss that is summed over distinct items of a batch of B examples.

    The items are those of the batch's histories and targets. Subclasses have weights of their own, which are trained
    beside the student's, lie in the checkpoint, and are gone once training has ended.

    Args:
        vectors: `[V, Dt]`, the teacher's, scaled.
        weight: ``lambda_d``; with 0 the term is exactly 0 and nothing is drawn.
        items_per_step: most items a step, drawn uniformly from those of the batch; None takes them all.
    """

    vectors: Tensor

    def __init__(self, *, vectors: Tensor, weight: float, items_per_step: int | None) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.weight = weight
        self.items_per_step = items_per_step

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        """Nothing is prepared; see `Distiller`."""

    def forward(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return ``lambda_d`` times the loss of a batch; see `Distiller`."""
        if self.weight == 0.0:
            return hidden.new_zeros(())
        items = batch_items(batch, num_items=scorer.num_items, most=self.items_per_step, generator=generator)
        items = items.to(hidden.device)
        loss: Tensor = self.loss(scorer.embed(items), self.vectors[items], generator)
        return self.weight * loss / len(hidden)

    @abstractmethod
    def loss(self, embedded: Tensor, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of m items, a scalar.

        Args:
            embedded: `[m, D]`, the student's item embeddings.
            vectors: `[m, Dt]`, the teacher's.
            generator: draws what is drawn.
        """


def batch_items(batch: Batch, *, num_items: int, most: int | None, generator: torch.Generator) -> Tensor:
    """Return the distinct items of a batch's histories and targets, `[m]` on the processor, without padding.

    More than ``most`` are cut to as many, drawn uniformly.
    """
    present = torch.unique(torch.cat([batch.history.flatten(), batch.target]).cpu())
    items: Tensor = present[present < num_items]
    if most is None or len(items) <= most:
        return items
    return items[torch.randperm(len(items), generator=generator)[:most]]


def halfway(first: int, second: int) -> int:
    """Return the size of a hidden layer between two spaces: their mean, as in the originals."""
    return (first + second) // 2


def draw_weights(*shape: int, inputs: int, generator: torch.Generator) -> nn.Parameter:
    """Draw weights for a layer of ReLU units that reads ``inputs`` values: normal with variance ``2 / inputs``."""
    return nn.Parameter(torch.randn(shape, generator=generator) * (2.0 / inputs) ** 0.5)

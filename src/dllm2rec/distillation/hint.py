"""Hint, or FitNets (Romero et al., ICLR 2015, eq. 3), on item embeddings."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.vectors import VectorDistiller, draw_weights, halfway
from dllm2rec.students.item_table import VectorScaling


class HintSettings(Settings):
    """Hint.

    Attributes:
        lambda_d: weight of the term. The original has none, it trains on hints first and on the task after; the default
            is that of HTD, its nearest relative here.
        hidden: size of the hidden layer of g; None puts it halfway between the two spaces.
        items_per_step: most items a step; None takes all of the batch, which costs several times as much.
        vector_scaling: of the teacher's vectors, as `student.vector_scaling`.
    """

    kind: Literal["hint"] = "hint"
    lambda_d: Annotated[float, Field(ge=0)] = 1e-3
    hidden: PositiveInt | None = None
    items_per_step: PositiveInt | None = 256
    vector_scaling: VectorScaling = "standardise"


class HintDistiller(VectorDistiller):
    """``sum_i || z_i - g(e_i) ||^2`` over the distinct items i of a batch.

    ``z_i`` is the teacher's vector, ``e_i`` the student's embedding of an item in a history, and ``g`` a learned map
    from the student's space to the teacher's: linear, ReLU, linear.

    Relations: DLLM2Rec maps the other way, from the teacher's space into the student's, and adds what the map gives to
    the embedding; here the embedding alone has to explain the teacher's vector. HTD splits g by groups of items.

    Deviations: the teacher has no table of users, so only items are distilled; of those in a batch's histories and
    targets at most `items_per_step`, drawn anew each step, and the sum is divided by the batch size, as our base loss
    is a mean over the batch. The hint joins the loss of the task from the start, as all methods compared here do, where
    the original trains in two stages. With a separate output layer it acts on the input side only.

    Args:
        vectors: `[V, Dt]`, the teacher's, scaled.
        dim: D of the student.
        settings: see there.
        generator: draws the initial weights.
    """

    def __init__(self, *, vectors: Tensor, dim: int, settings: HintSettings, generator: torch.Generator) -> None:
        super().__init__(vectors=vectors, weight=settings.lambda_d, items_per_step=settings.items_per_step)
        size = vectors.shape[1]
        hidden = settings.hidden or halfway(dim, size)
        self.first = draw_weights(dim, hidden, inputs=dim, generator=generator)
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second = draw_weights(hidden, size, inputs=hidden, generator=generator)
        self.second_bias = nn.Parameter(torch.zeros(size))

    def loss(self, embedded: Tensor, vectors: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the sum of the squared distances of m items."""
        guess = torch.relu(embedded @ self.first + self.first_bias) @ self.second + self.second_bias
        return hint_loss(guess, vectors)


def hint_loss(guess: Tensor, vectors: Tensor) -> Tensor:
    """Return ``sum_i || z_i - guess_i ||^2`` of `[m, Dt]` and `[m, Dt]`, a scalar."""
    return (vectors - guess).square().sum()

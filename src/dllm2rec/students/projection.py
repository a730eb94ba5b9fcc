"""The projector ``g`` of text vectors (Cui et al. 2024, eq. 12), for all items or only for some."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROWS_AT_ONCE = 256


class TextProjector(nn.Module, ABC):
    """Whatever turns text vectors into item embeddings."""

    @abstractmethod
    def forward(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Project vectors `[V, Dt]`, or only the given rows `[N]` of them; returns `[V, D]` or `[N, D]`."""

    @abstractmethod
    def initialise(self, generator: torch.Generator, *, std: float, vector_std: float = 1.0) -> None:
        """Draw weights that give ``g(z)`` about ``std`` where the columns of ``z`` have ``vector_std``."""


class Projector(TextProjector):
    """A linear map, or two with ReLU in between.

    Args:
        size: of a text vector, Dt.
        hidden: size of the hidden layer, or None for none.
        dim: D.
    """

    def __init__(self, *, size: int, hidden: int | None, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(size, dim if hidden is None else hidden)
        self.second = None if hidden is None else nn.Linear(hidden, dim)

    def forward(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Project vectors `[V, Dt]`, or only the given rows `[N]` of them; returns `[V, D]` or `[N, D]`."""
        if rows is None:
            projected: Tensor = self.first(vectors)
        else:
            projected = project_rows(vectors, rows, self.first.weight) + self.first.bias
        return projected if self.second is None else self.second(torch.relu(projected))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, *, std: float, vector_std: float = 1.0) -> None:
        """Draw weights that give ``g(z)`` about ``std`` where the columns of ``z`` have ``vector_std``."""
        last = self.first if self.second is None else self.second
        for layer in (self.first, *([] if self.second is None else [self.second])):
            wanted = (std if layer is last else 1.0) / (vector_std if layer is self.first else 1.0)
            layer.weight.normal_(std=wanted * layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()


def project_rows(matrix: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return ``matrix[rows] @ weight.T``; the gradient reaches ``weight`` only.

    A copy of a few thousand rows of thousands of values would cost more memory traffic than the product. So a few rows
    at a time are gathered into a buffer that stays in the processor's cache, on the way forward and on the way back.

    Args:
        matrix: `[V, Dt]`, constant.
        rows: `[N]`.
        weight: `[D, Dt]`.

    Returns:
        `[N, D]`.
    """
    result: Tensor = _ProjectRows.apply(matrix, rows, weight)
    return result


class _ProjectRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(matrix, rows)
        result = matrix.new_empty(len(rows), len(weight))
        buffer = matrix.new_empty(min(len(rows), ROWS_AT_ONCE), matrix.shape[1])
        for part, out in zip(torch.split(rows, ROWS_AT_ONCE), torch.split(result, ROWS_AT_ONCE), strict=True):
            gathered = torch.index_select(matrix, 0, part, out=buffer[: len(part)])
            torch.mm(gathered, weight.T, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        matrix, rows = ctx.saved_tensors
        gradient = matrix.new_zeros(grads[0].shape[1], matrix.shape[1])
        buffer = matrix.new_empty(min(len(rows), ROWS_AT_ONCE), matrix.shape[1])
        for part, slope in zip(torch.split(rows, ROWS_AT_ONCE), torch.split(grads[0], ROWS_AT_ONCE), strict=True):
            gathered = torch.index_select(matrix, 0, part, out=buffer[: len(part)])
            gradient.addmm_(slope.T, gathered)
        return None, None, gradient

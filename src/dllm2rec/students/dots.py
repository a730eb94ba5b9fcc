"""Many short dot products, forward and backward without a copy or a transposed product."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def row_dots(hidden: Tensor, rows: Tensor) -> Tensor:
    """Return the dot product of each vector `[B, D]` with each of its own rows `[B, K, D]`, `[B, K]`."""
    products: Tensor = _RowDots.apply(hidden, rows)
    return products


class _RowDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, rows)
        return (hidden.unsqueeze(1) @ rows.transpose(1, 2)).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        hidden, rows = ctx.saved_tensors
        return (gradient.unsqueeze(1) @ rows).squeeze(1), gradient.unsqueeze(2) * hidden.unsqueeze(1)

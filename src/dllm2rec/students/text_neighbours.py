"""Text neighbours inside a student: how near an item's text is to the history's, by the teacher's vectors alone.

Behaviour that was learned ages, likeness of titles does not. So the vector of an item may be widened by its text vector
at length 1 (reduced to P dimensions), and that of a history by the decayed sum of those of its items: one inner product
then adds the score by text to the student's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import linalg
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.data.examples import DECAY


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Directions of text vectors.

    Attributes:
        near: `[V, P]`.
        basis: `[Dt, P]`, in which they are.
    """

    near: Tensor
    basis: Tensor


def directions(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return the directions of text vectors `[N, Dt]` in a basis `[Dt, P]`, `[N, P]`."""
    return F.normalize(vectors, dim=1) @ basis


@torch.no_grad()
def basis_of(vectors: Tensor, size: int) -> Tensor:
    """Return the basis `[Dt, P]` in which inner products of directions of vectors `[V, Dt]` change the least.

    P is ``size``, or Dt if that is less; then nothing changes.
    """
    width = vectors.shape[1]
    if size >= width:
        return torch.eye(width)
    unit = F.normalize(vectors, dim=1)
    _, basis = linalg.eigh((unit.T @ unit).numpy(), subset_by_index=(width - size, width - 1))
    return torch.from_numpy(basis)


def neighbour_scores(near: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what scores all V items for histories `[B, l]`, padded with V, by their directions `[V, P]` alone."""
    padded = F.pad(near, (0, 0, 0, 1))
    return lambda history: summed(F.embedding(history, padded)) @ near.T


def summed(near: Tensor) -> Tensor:
    """Sum directions of histories `[B, l, P]`, padding zero and the newest last, by age; returns `[B, P]`."""
    age = torch.arange(near.shape[1], device=near.device).flip(0)
    return (DECAY ** age.to(near).unsqueeze(-1) * near).sum(dim=1)

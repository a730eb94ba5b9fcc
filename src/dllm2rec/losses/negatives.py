"""Sampled negatives."""

import torch
from torch import Tensor

from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer


def uniform_negatives(target: Tensor, *, num_items: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw items uniformly from all items but the target, with replacement.

    Args:
        target: `[B]` int64.
        num_items: V, at least 2.
        count: how many for each target.
        generator: a CPU generator; the same state gives the same items on any device.

    Returns:
        `[B, count]` int64.

    Raises:
        ValueError: there is nothing to draw from, or ``target`` is not a vector.
    """
    if num_items < 2:
        raise ValueError("negatives need a catalogue of at least 2 items")
    if target.ndim != 1:
        raise ValueError(f"targets must be [B], not {list(target.shape)}")
    drawn = torch.randint(num_items - 1, (len(target), count), generator=generator).to(target.device)
    return drawn + (drawn >= target.unsqueeze(1))


def score_with_negatives(
    scorer: Scorer, hidden: Tensor, batch: Batch, *, count: int, generator: torch.Generator
) -> Tensor:
    """Score targets and ``count`` `uniform_negatives` of each by gather, `[B, 1 + count]`; the target comes first."""
    drawn = uniform_negatives(batch.target, num_items=scorer.num_items, count=count, generator=generator)
    return scorer.score_items(hidden, torch.cat([batch.target.unsqueeze(1), drawn], dim=1))

"""Drawing items for many examples at once, on the processor, from a passed generator."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.distillation.permutation import NO_ITEM

SMALLEST = 2.0**-24  # keeps both logarithms of a uniform variable finite


def draw_distinct(log_weights: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw without replacement, each time in proportion to the weights of what is left.

    The ``count`` largest of ``log w + Gumbel noise`` are such a draw.

    Args:
        log_weights: `[N, M]` logarithms of weights; minus infinity is never drawn.
        count: how many a row, at most M.
        generator: a CPU generator.

    Returns:
        `[N, count]` int64 columns in the order of drawing; `NO_ITEM` once a row has no weight left.

    Raises:
        ValueError: ``count`` is not between 1 and M.
    """
    if not 1 <= count <= log_weights.shape[1]:
        raise ValueError(f"count must be between 1 and {log_weights.shape[1]}, not {count}")
    uniform = torch.rand(log_weights.shape, generator=generator).clamp_(min=SMALLEST, max=1 - SMALLEST)
    noise = uniform.log_().neg_().log_()  # minus a Gumbel variable
    keys, drawn = (log_weights - noise).topk(count, dim=1)
    return torch.where(keys == -torch.inf, NO_ITEM, drawn)


def draw_by_rank(rows: int, *, depth: int, count: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw distinct places of a list with weight ``exp(-r / temperature)``, r from 1 to ``depth``, best first.

    Returns:
        `[rows, count]` int64 places from 0, ascending in each row.
    """
    log_weights = (-torch.arange(1, depth + 1) / temperature).expand(rows, depth)
    return draw_distinct(log_weights, count, generator=generator).sort(dim=1).values


def draw_outside(excluded: Tensor, *, num_items: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw items uniformly from those that are not excluded, with replacement.

    Args:
        excluded: `[N, X]` int64 items in any order, also several times; V or more (padding) excludes nothing.
        num_items: V.
        count: how many a row.
        generator: a CPU generator.

    Returns:
        `[N, count]` int64; `NO_ITEM` in the rows that exclude every item.
    """
    ordered = torch.from_numpy(np.sort(excluded.int().clamp(max=num_items).numpy(), axis=1))  # faster than torch's
    distinct = ordered < num_items
    distinct[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    found = distinct.cumsum(dim=1, dtype=torch.int32)  # excluded items up to and with this one
    free_before = ordered - found + 1  # items below this one that may be drawn
    total = num_items - found[:, -1:]
    number = (torch.rand(len(excluded), count, generator=generator) * total).int().clamp(max=total - 1)
    skipped = torch.searchsorted(free_before, number, right=True)
    items = number + F.pad(found, (1, 0)).gather(1, skipped)
    return torch.where(total > 0, items, NO_ITEM).long()

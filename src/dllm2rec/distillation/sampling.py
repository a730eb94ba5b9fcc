"""Drawing items for many examples at once, on the processor, from a passed generator."""

import torch
from torch import Tensor

from dllm2rec.distillation.permutation import NOBODY


def draw_distinct(log_weights: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw without replacement, each time in proportion to the weights of what is left.

    The ``count`` largest of ``log w + Gumbel noise`` are such a draw.

    Args:
        log_weights: `[N, M]` logarithms of weights; minus infinity is never drawn.
        count: how many a row, at most M.
        generator: a CPU generator.

    Returns:
        `[N, count]` int64 columns in the order of drawing; `NOBODY` once a row has no weight left.

    Raises:
        ValueError: ``count`` is not between 1 and M.
    """
    if not 1 <= count <= log_weights.shape[1]:
        raise ValueError(f"count must be between 1 and {log_weights.shape[1]}, not {count}")
    noise = torch.empty(log_weights.shape).exponential_(generator=generator).log_()
    keys, drawn = (log_weights - noise).topk(count, dim=1)
    return torch.where(keys == -torch.inf, NOBODY, drawn)


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
        `[N, count]` int64; `NOBODY` in the rows that exclude every item.
    """
    free = torch.ones(len(excluded), num_items + 1, dtype=torch.bool)
    free.scatter_(1, excluded.clamp(max=num_items), value=False)
    free_so_far = free[:, :num_items].cumsum(dim=1, dtype=torch.int32)
    total = free_so_far[:, -1:]
    place = (torch.rand(len(excluded), count, generator=generator) * total).int().clamp(max=total - 1)
    return torch.where(total > 0, torch.searchsorted(free_so_far, place + 1), NOBODY)

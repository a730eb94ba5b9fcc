"""Batches of tensors from examples."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm2rec.data.examples import Examples


@dataclass(frozen=True)
class Batch:
    """Rows of one split, as int64 tensors where nothing else is said.

    Attributes:
        history: `[B, L]`, padded on the left with V.
        target: `[B]`.
        row: `[B]`, where each row stands in the examples that it came from.
        user: `[B]`, row of the dataset's users.
        time: `[B]` float64, seconds, of the example.
        source: the examples that the rows came from; None where a batch came from nowhere.
    """

    history: Tensor
    target: Tensor
    row: Tensor
    user: Tensor | None = None
    time: Tensor | None = None
    source: Examples | None = None

    @property
    def past(self) -> tuple[Tensor, Tensor] | None:
        """All pairs of a row of the batch and an item that its user chose before the target, `[P]` each, row by row.

        None where no more than the histories is known.
        """
        if self.source is None or self.source.past is None:
            return None
        row, item = self.source.past.take(self.row.cpu().numpy()).pairs()
        return torch.from_numpy(row), torch.from_numpy(item).long()


def batches(examples: Examples, *, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
    """Go once through ``examples``, shuffled if and only if a generator is given; the last batch may be short.

    Raises:
        ValueError: ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return _iterate(examples, batch_size, generator)


def _iterate(examples: Examples, batch_size: int, generator: torch.Generator | None) -> Iterator[Batch]:
    history = torch.tensor(examples.history, dtype=torch.long)
    target = torch.tensor(examples.target, dtype=torch.long)
    user = torch.tensor(examples.user, dtype=torch.long)
    time = torch.tensor(examples.time, dtype=torch.float64)
    count = len(examples)
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    for start in range(0, count, batch_size):
        row = order[start : start + batch_size]
        yield Batch(history=history[row], target=target[row], row=row, user=user[row], time=time[row], source=examples)

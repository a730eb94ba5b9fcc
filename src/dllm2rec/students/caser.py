"""Caser: convolutions over the history as an image (Tang and Wang 2018)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from dllm2rec.students.base import SharedSettings, Student, dropout
from dllm2rec.students.item_table import ItemTable


class CaserSettings(SharedSettings):
    """Caser.

    Attributes:
        heights: over how many neighbouring items each group of horizontal filters looks; at most the whole history.
        horizontal_filters: filters of each height.
        vertical_filters: weighted sums over the positions.
    """

    kind: Literal["caser"] = "caser"
    heights: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 3, 4)
    horizontal_filters: PositiveInt = 16
    vertical_filters: PositiveInt = 1


class Caser(Student):
    """Horizontal and vertical convolutions over the embedded history, then one dense layer.

    There is no table of users: the sequence vector depends on the history alone, so that users who were not there in
    training are served too. The published model adds a vector of the user before the output layer.

    Args:
        table: the item embeddings.
        history: L; a shorter history is padded to it.
        heights: heights of the horizontal filters; those over L are cut to L.
        horizontal_filters: filters of each height.
        vertical_filters: weighted sums over the positions.
        dropout: share of the convolved values that training drops.

    Raises:
        ValueError: there is no height.
    """

    def __init__(
        self,
        *,
        table: ItemTable,
        history: int,
        heights: tuple[int, ...] = (2, 3, 4),
        horizontal_filters: int = 16,
        vertical_filters: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(table=table, history=history)
        if not heights:
            raise ValueError("heights must name at least one height")
        self.dropout = dropout
        sizes = sorted({min(height, history) for height in heights})
        self.horizontal = nn.ModuleList(nn.Conv2d(1, horizontal_filters, (size, table.dim)) for size in sizes)
        self.vertical = nn.Conv2d(1, vertical_filters, (history, 1))
        self.dense = nn.Linear(horizontal_filters * len(sizes) + vertical_filters * table.dim, table.dim)

    def encode_embedded(
        self,
        embedded: Tensor,
        mask: Tensor,  # noqa: ARG002 - padding is zero, which is all that convolutions want to know
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Turn item vectors `[B, l, D]` under a mask `[B, l]` into `[B, D]`; see `Student.encode_embedded`."""
        image = F.pad(embedded, (0, 0, self.history - embedded.shape[1], 0)).unsqueeze(1)
        features = torch.cat([*self._strongest(image), self.vertical(image).flatten(1)], dim=1)
        features = dropout(features, self.dropout, training=self.training, generator=generator)
        return torch.relu(self.dense(features))

    def _strongest(self, image: Tensor) -> list[Tensor]:
        """Return each horizontal filter's strongest response to images `[B, 1, L, D]`: one `[B, filters]` a height."""
        return [torch.relu(filters(image)).squeeze(3).amax(dim=2) for filters in self.horizontal]

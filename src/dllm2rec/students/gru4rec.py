"""GRU4Rec: a recurrent network over the history (Hidasi et al. 2016)."""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from dllm2rec.students.base import SharedSettings, Student, dropout
from dllm2rec.students.item_table import ItemTable


class GRU4RecSettings(SharedSettings):
    """GRU4Rec.

    Attributes:
        layers: how many recurrent layers.
    """

    kind: Literal["gru4rec"] = "gru4rec"
    layers: PositiveInt = 1


class GRU4Rec(Student):
    """A GRU from the oldest item to the newest; its state after the newest is the sequence vector.

    The items of a history are moved to the left before the recurrence, so that padding comes after them and can't
    reach their states. A history without items gives the zero vector.

    Args:
        table: the item embeddings.
        history: L.
        layers: how many recurrent layers.
        dropout: share of the embedded values that training drops.
    """

    def __init__(self, *, table: ItemTable, history: int, layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__(table=table, history=history)
        self.dropout = dropout
        self.gru = nn.GRU(table.dim, table.dim, num_layers=layers, batch_first=True)

    def encode_embedded(self, embedded: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Turn item vectors `[B, l, D]` under a mask `[B, l]` into `[B, D]`; see `Student.encode_embedded`."""
        embedded = _padded_right(embedded, mask)
        states, _ = self.gru(dropout(embedded, self.dropout, training=self.training, generator=generator))
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        newest = states.gather(1, last.view(-1, 1, 1).expand(-1, 1, states.shape[2])).squeeze(1)
        result: Tensor = newest * mask.any(dim=1, keepdim=True)
        return result


def _padded_right(embedded: Tensor, mask: Tensor) -> Tensor:
    """Move the items of left-padded histories `[B, l, D]` to the left, the padding to the right; mask `[B, l]`."""
    length = mask.shape[1]
    columns = torch.arange(length, device=mask.device) + (length - mask.sum(dim=1, keepdim=True))
    return embedded.gather(1, (columns % length).unsqueeze(-1).expand(-1, -1, embedded.shape[2]))

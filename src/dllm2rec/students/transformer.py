"""A causal transformer as they are built today: SASRec's idea with normalised inputs, a wide inner layer and ages."""

import math
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from dllm2rec.students.base import SharedSettings, Student, dropout
from dllm2rec.students.item_table import ItemTable


class TransformerSettings(SharedSettings):
    """A pre-norm transformer with one head.

    Attributes:
        blocks: how many.
        inner: width of the feed-forward layers, in multiples of `dim`.
    """

    kind: Literal["transformer"] = "transformer"
    blocks: PositiveInt = 1
    inner: PositiveInt = 4


class Transformer(Student):
    """Self-attention over the history; the normalised state at the newest position is the sequence vector.

    Against SASRec: the residual path is never normalised (Xiong et al. 2020), so an item's vector reaches the sequence
    vector as it is; item vectors are scaled up by ``sqrt(D)``, so that small initial weights give balanced scores and
    yet a signal inside; the inner layer is wide; and each block learns a bias per age, of which a history of ten items
    needs few.

    Args:
        table: the item embeddings.
        history: L.
        blocks: how many.
        inner: width of the feed-forward layers, in multiples of D.
        dropout: share of values that training drops.
    """

    def __init__(
        self, *, table: ItemTable, history: int, blocks: int = 1, inner: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__(table=table, history=history)
        self.dropout = dropout
        self.positions = nn.Embedding(history, table.dim)
        self.blocks = nn.ModuleList(
            _Block(dim=table.dim, inner=inner * table.dim, history=history, dropout=dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(table.dim)

    def encode_embedded(self, embedded: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Turn item vectors `[B, l, D]` under a mask `[B, l]` into `[B, D]`; see `Student.encode_embedded`."""
        age = torch.arange(embedded.shape[1], device=embedded.device).flip(0)
        states = embedded * math.sqrt(self.dim) + self.positions(age)
        states = dropout(states, self.dropout, training=self.training, generator=generator) * mask.unsqueeze(-1)
        for block in self.blocks[:-1]:
            states = block(states, mask, age, queries=embedded.shape[1], generator=generator)
        newest: Tensor = self.norm(self.blocks[-1](states, mask, age, queries=1, generator=generator))
        return newest.squeeze(1)


class _Block(nn.Module):
    def __init__(self, *, dim: int, inner: int, history: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.mix = nn.Linear(dim, dim)
        self.ages = nn.Embedding(history, 1)
        self.forward_norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, inner)
        self.outer = nn.Linear(inner, dim)

    def forward(
        self, states: Tensor, mask: Tensor, age: Tensor, *, queries: int, generator: torch.Generator | None
    ) -> Tensor:
        """Compute the newest ``queries`` positions of states `[B, L, D]`; `[B, queries, D]`.

        Args:
            states: `[B, L, D]`.
            mask: bool `[B, L]`, where there is an item.
            age: `[L]`, steps from the newest position.
            queries: how many positions.
            generator: draws dropout.
        """

        def drop(values: Tensor) -> Tensor:
            return dropout(values, self.dropout, training=self.training, generator=generator)

        normed = self.attention_norm(states)
        weights = drop(self._attention(normed, mask, age, queries))
        states = states[:, -queries:] + drop(self.mix(weights @ self.value(normed)))
        inner = drop(F.gelu(self.inner(self.forward_norm(states))))
        result: Tensor = (states + drop(self.outer(inner))) * mask[:, -queries:].unsqueeze(-1)
        return result

    def _attention(self, normed: Tensor, mask: Tensor, age: Tensor, queries: int) -> Tensor:
        """Return causal attention weights `[B, queries, L]`; all zero where there is nothing to attend to."""
        logits = self.query(normed[:, -queries:]) @ self.key(normed).transpose(1, 2) / math.sqrt(normed.shape[2])
        steps = age.unsqueeze(0) - age[-queries:].unsqueeze(1)  # how much older the key is than the query
        logits = logits + self.ages(steps.clamp(min=0)).squeeze(-1)
        allowed = (steps >= 0) & mask.unsqueeze(1)
        weights = torch.softmax(logits.masked_fill(~allowed, torch.finfo(logits.dtype).min), dim=-1)
        return weights * allowed

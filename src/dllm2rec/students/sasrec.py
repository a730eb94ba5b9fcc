"""SASRec: causal self-attention over the history (Kang and McAuley 2018)."""

import math
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from dllm2rec.students.base import SharedSettings, Student, dropout
from dllm2rec.students.item_table import ItemTable


class SASRecSettings(SharedSettings):
    """SASRec with one head.

    Attributes:
        blocks: how many attention blocks.
    """

    kind: Literal["sasrec"] = "sasrec"
    blocks: PositiveInt = 1


class SASRec(Student):
    """Self-attention with learned positions and one head; the state at the newest position is the sequence vector.

    Positions are counted from the newest item, so that how much padding stands before a history changes nothing. (The
    authors' code pads on the right and counts from the oldest item; the two agree on full histories up to the names of
    the positions.) The last block computes only the newest position, because nothing else of it is used.

    Args:
        table: the item embeddings.
        history: L.
        blocks: how many attention blocks.
        dropout: share of values that training drops.
    """

    def __init__(self, *, table: ItemTable, history: int, blocks: int = 1, dropout: float = 0.1) -> None:
        super().__init__(table=table, history=history)
        self.dropout = dropout
        self.positions = nn.Embedding(history, table.dim)
        self.blocks = nn.ModuleList(AttentionBlock(dim=table.dim, dropout=dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(table.dim)

    def encode_embedded(self, embedded: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Turn item vectors `[B, l, D]` under a mask `[B, l]` into `[B, D]`; see `Student.encode_embedded`."""
        age = torch.arange(embedded.shape[1], device=embedded.device).flip(0)
        states = embedded + self.positions(age)
        states = dropout(states, self.dropout, training=self.training, generator=generator) * mask.unsqueeze(-1)
        for block in self.blocks[:-1]:
            states = block(states, mask, queries=embedded.shape[1], generator=generator)
        newest: Tensor = self.norm(self.blocks[-1](states, mask, queries=1, generator=generator))
        return newest.squeeze(1)


class AttentionBlock(nn.Module):
    """Attention and a feed-forward layer, each with a residual; keys and values are not normalised."""

    def __init__(self, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would add the same to all logits of a query
        self.value = nn.Linear(dim, dim)
        self.forward_norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, states: Tensor, mask: Tensor, *, queries: int, generator: torch.Generator | None) -> Tensor:
        """Compute the newest ``queries`` positions of states `[B, L, D]` under a mask `[B, L]`; `[B, queries, D]`."""
        normed = self.attention_norm(states[:, -queries:])
        weights = self._attention(normed, states, mask)
        weights = dropout(weights, self.dropout, training=self.training, generator=generator)
        attended = normed + weights @ self.value(states)
        normed = self.forward_norm(attended)
        inner = dropout(torch.relu(self.inner(normed)), self.dropout, training=self.training, generator=generator)
        outer = dropout(self.outer(inner), self.dropout, training=self.training, generator=generator)
        result: Tensor = (normed + outer) * mask[:, -queries:].unsqueeze(-1)
        return result

    def _attention(self, normed: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return causal attention weights `[B, queries, L]`; all zero where there is nothing to attend to."""
        length, queries = states.shape[1], normed.shape[1]
        logits = self.query(normed) @ self.key(states).transpose(1, 2) / math.sqrt(states.shape[2])
        causal = torch.ones(length, length, dtype=torch.bool, device=states.device).tril()[length - queries :]
        allowed = causal & mask.unsqueeze(1)
        weights = torch.softmax(logits.masked_fill(~allowed, torch.finfo(logits.dtype).min), dim=-1)
        return weights * allowed

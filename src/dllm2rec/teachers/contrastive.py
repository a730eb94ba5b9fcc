"""What a retrieval teacher learns: a query and its next item belong together, against the rest of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import torch_generator
from dllm2rec.core.settings import Settings

_SAMPLE = 50_000
_SCORES_AT_ONCE = 1 << 24


class HeadSettings(Settings):
    """The two maps from a language model's states to the space in which queries and items meet, and how they learn.

    Attributes:
        size: of that space.
        epochs: passes over the examples.
        batch_size: examples a step.
        learning_rate: of AdamW; falls along a cosine to zero.
        weight_decay: of AdamW.
        dropout: share of the values of a state that training drops.
        negatives: items of a step that are drawn evenly, beside its targets and the hard ones.
        hard: for each distinct target of a step so many of the items whose states are nearest to its own.
    """

    size: PositiveInt = 256
    epochs: PositiveInt = 6
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    negatives: PositiveInt = 2048
    hard: NonNegativeInt = 4


class Heads(nn.Module):
    """Linear maps of standardised states: ``s = (A x)^T (B z) + c log(1 + n)``, n how often training chose an item.

    Nothing is learned for an item alone, so an item that no one chose is scored as any other.

    Args:
        states: `[V, D]`, of the items; their mean and deviation standardise items, those of ``queries`` the queries.
        queries: `[N, D]`, a sample of the states of histories.
        counts: `[V]`, n.
        size: of the common space.
        dropout: of the states, in training.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        *,
        states: Tensor,
        queries: Tensor,
        counts: Tensor,
        size: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("items", _standardised(states))
        mean, deviation = _scale(queries)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("popularity", torch.log1p(counts.float()))
        self.popularity_weight = nn.Parameter(torch.zeros(()))
        self.dropout = dropout
        width = states.shape[1]
        first = torch.randn(size, width, generator=generator) * width**-0.5
        # the same map on both sides: at first the score is how alike two states are
        self.query_map = nn.Parameter(first.clone() * size**-0.25)
        self.item_map = nn.Parameter(first.clone() * size**-0.25)

    mean: Tensor
    deviation: Tensor
    items: Tensor
    popularity: Tensor

    def queries(self, states: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Map the states of histories `[N, D]` to queries `[N, size]`; a generator draws dropout."""
        return self._drop((states - self.mean) / self.deviation, generator) @ self.query_map.T

    def embed(self, rows: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Map items, `[n]` or the whole catalogue, to their vectors `[n, size]`."""
        return self._drop(self.items if rows is None else self.items[rows], generator) @ self.item_map.T

    def bias(self, rows: Tensor | None = None) -> Tensor:
        """Return what is added to the scores of items, `[n]` or of the whole catalogue."""
        return self.popularity_weight * (self.popularity if rows is None else self.popularity[rows])

    def _drop(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.dropout == 0:
            return values
        keep = torch.empty(values.shape).bernoulli_(1 - self.dropout, generator=generator)
        return values * (keep / (1 - self.dropout)).to(values.device)


def contrastive_loss(
    heads: Heads,
    states: Tensor,
    drawn: Drawn,
    *,
    history: Tensor | None = None,
    generator: torch.Generator | None,
) -> Tensor:
    """``mean_b ( log sum_j w_j exp(s_bj) - s_b,target )``: cross-entropy over a sampled catalogue.

    Items that are there for certain (the targets of the step and the hard negatives) have weight 1. Items drawn evenly
    from the rest stand for all of the rest, with weight rest / drawn, so the sum estimates that over the catalogue.

    Args:
        heads: score.
        states: `[B, D]`, of the histories.
        drawn: the items of the step.
        history: `[B, L]`, items that are left out of a history's own sum, but never the target; None leaves none out.
        generator: draws dropout; None drops nothing.
    """
    items = drawn.items.to(states.device)
    queries, vectors = heads.queries(states, generator=generator), heads.embed(items, generator=generator)
    scores = queries @ vectors.T + heads.bias(items) + drawn.log_weight.to(states.device)
    target = drawn.target.to(states.device)
    if history is not None:
        own = scores.gather(1, target.unsqueeze(1))
        scores = scores.masked_fill(_held(drawn.items, history).to(states.device), -torch.inf)
        scores = scores.scatter(1, target.unsqueeze(1), own)
    return F.cross_entropy(scores, target)


def _held(items: Tensor, history: Tensor) -> Tensor:
    """Return which of the items `[n]` each history `[B, L]` holds, `[B, n]`."""
    order = items.argsort()
    place = torch.searchsorted(items[order], history).clamp(max=len(items) - 1)
    place = order[place]
    held = torch.zeros(len(history), len(items) + 1, dtype=torch.bool)
    held.scatter_(1, torch.where(items[place] == history, place, len(items)), True)
    return held[:, :-1]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The items of a step.

    Attributes:
        items: `[n]`, distinct.
        log_weight: `[n]`, of each in the sum over the catalogue.
        target: `[B]`, the columns of the targets.
    """

    items: Tensor
    log_weight: Tensor
    target: Tensor


def draw_items(
    targets: Tensor, *, near: Tensor, competing: Tensor, negatives: int, generator: torch.Generator
) -> Drawn:
    """Choose the items of a step.

    Args:
        targets: `[B]`.
        near: `[V, hard]`, for each item its hard negatives.
        competing: `[M]`, the items that compete: those that training chose.
        negatives: drawn evenly, without those that are there for certain.
        generator: draws them.
    """
    certain, place = torch.unique(torch.cat([targets, near[targets].flatten()]), return_inverse=True)
    rest = competing[~torch.isin(competing, certain)]
    drawn = rest[torch.randperm(len(rest), generator=generator)[:negatives]]
    weight = torch.zeros(len(certain) + len(drawn))
    if len(drawn):
        weight[len(certain) :] = float(np.log(len(rest) / len(drawn)))
    return Drawn(items=torch.cat([certain, drawn]), log_weight=weight, target=place[: len(targets)])


def hard_negatives(states: Tensor, competing: Tensor, count: int) -> Tensor:
    """List for each item the ``count`` nearest others (cosine of standardised states) that compete, `[V, count]`."""
    unit = F.normalize(_standardised(states), dim=1)
    count = min(count, len(competing) - 1)
    found = torch.empty(len(unit), max(count, 0), dtype=torch.long)
    if count < 1:
        return found
    others = unit[competing].T
    for rows in torch.split(torch.arange(len(unit)), max(1, _SCORES_AT_ONCE // len(competing))):
        near = unit[rows] @ others
        near[rows.unsqueeze(1) == competing] = -torch.inf
        found[rows] = competing[near.topk(count, dim=1).indices]
    return found


def fit_heads(
    *,
    states: Tensor,
    queries: NDArray[np.float16],
    target: NDArray[np.integer],
    counts: NDArray[np.integer],
    near: Tensor,
    settings: HeadSettings,
    seed: int,
    history: NDArray[np.integer] | None = None,
    told: str = "fitting heads",
) -> Heads:
    """Fit the two maps to pairs of a history's state and the item that came next.

    Args:
        states: `[V, D]`, of the items.
        queries: `[N, D]`, of the histories.
        target: `[N]`.
        counts: `[V]`, how often training chose each item; those above 0 compete.
        near: `[V, hard]`, from `hard_negatives`.
        settings: see there.
        seed: of the initial weights, the order and what is drawn.
        history: `[N, L]`, items that are left out of each history's own sum; None leaves none out.
        told: what the bar says.
    """
    if not len(queries):  # no one is left to learn from: how alike two states are is all there is
        return first_heads(states=states, queries=states.numpy(), counts=counts, settings=settings, seed=seed).eval()
    competing = torch.from_numpy(np.flatnonzero(counts))
    heads = first_heads(states=states, queries=queries, counts=counts, settings=settings, seed=seed)
    steps = settings.epochs * -(-len(queries) // settings.batch_size)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows, answers = torch.from_numpy(queries), torch.from_numpy(target.astype(np.int64))
    with progress_bar(told, steps) as advance:
        for epoch in range(settings.epochs):
            draw = torch_generator(seed, "heads", epoch)
            for part in torch.split(torch.randperm(len(rows), generator=draw), settings.batch_size):
                drawn = draw_items(
                    answers[part], near=near, competing=competing, negatives=settings.negatives, generator=draw
                )
                held = None if history is None else torch.from_numpy(history[part.numpy()].astype(np.int64))
                loss = contrastive_loss(heads, rows[part].float(), drawn, history=held, generator=draw)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                pace.step()
                advance(note=f"loss {float(loss.detach()):.3f}")
    return heads.eval()


def first_heads(
    *,
    states: Tensor,
    queries: NDArray[np.floating],
    counts: NDArray[np.integer],
    settings: HeadSettings,
    seed: int,
) -> Heads:
    """Return heads with initial weights; for the arguments see `fit_heads`."""
    sample = queries[:: max(1, len(queries) // _SAMPLE)].astype(np.float32)
    return Heads(
        states=states,
        queries=torch.from_numpy(sample),
        counts=torch.from_numpy(counts.astype(np.int64)),
        size=settings.size,
        dropout=settings.dropout,
        generator=torch_generator(seed, "heads"),
    )


def _standardised(states: Tensor) -> Tensor:
    mean, deviation = _scale(states)
    return (states - mean) / deviation


def _scale(states: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column, `[D]`; 1 of a constant one, which is only centred."""
    deviation, mean = torch.std_mean(states, dim=0, correction=0)
    return mean, torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, 1.0)

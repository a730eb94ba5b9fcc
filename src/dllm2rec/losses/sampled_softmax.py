"""Softmax over a sample of the catalogue, corrected for how the sample was drawn: no score matrix grows with V."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores, times


class SampledSoftmaxSettings(Settings):
    """Sampled softmax with logQ correction.

    Attributes:
        negatives: items drawn for each step; all its examples share them.
        power: they are drawn in proportion to ``count ** power`` among the items seen in training: 0 uniformly, 1 by
            popularity.
        candidates: those `seen` in training compete, or those `available`, which were seen by the time of the example.
    """

    kind: Literal["sampled-softmax"] = "sampled-softmax"
    negatives: PositiveInt = 1024
    power: Annotated[float, Field(ge=0)] = 0.5
    candidates: Literal["seen", "available"] = "seen"


class SampledSoftmaxLoss:
    """Draws items with replacement, scores them and the targets by gather; see `sampled_softmax`.

    Args:
        popularity: `[V]`, how often each item occurs in training; items that do not are never drawn.
        negatives: see `SampledSoftmaxSettings`.
        power: see `SampledSoftmaxSettings`.
        since: `[V]`, when training first has each item, in the unit of `Batch.time`, where only available items
            compete; of the drawn ones those that were not there count nothing, so the sum is still without bias.

    Raises:
        ValueError: more items are to be drawn than were seen in training.
    """

    def __init__(self, *, popularity: Tensor, negatives: int, power: float, since: Tensor | None = None) -> None:
        self.seen = popularity.nonzero().squeeze(1)
        if negatives > len(self.seen):
            raise ValueError(
                f"loss.negatives is {negatives}, but only {len(self.seen)} items were seen in training; "
                "take fewer, or the full softmax"
            )
        self.negatives, self.since = negatives, since
        weight = popularity[self.seen].double() ** power
        self.share = torch.zeros(len(popularity), dtype=torch.float64)
        self.share[self.seen] = weight / weight.sum()
        self._cumulative = self.share[self.seen].cumsum(0)

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        drawn = self._draw(generator)
        expected = (math.log(self.negatives) + self.share[drawn].log()).to(hidden)
        apart = None if self.since is None else competes_not_yet(self.since[drawn], batch)
        drawn = drawn.to(hidden.device)
        own = scorer.score_items(hidden, batch.target.unsqueeze(1)).squeeze(1)
        scores = scorer.score_shared(hidden, drawn)
        hit = batch.target.unsqueeze(1) == drawn
        return sampled_softmax(own, scores, log_expected=expected, hit=hit if apart is None else hit | apart)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Draw by the inverse of the cumulated shares: logarithmic in V, where `torch.multinomial` ends at 2^24."""
        uniform = torch.rand(self.negatives, generator=generator, dtype=torch.float64) * self._cumulative[-1]
        place = torch.searchsorted(self._cumulative, uniform, right=True).clamp(max=len(self.seen) - 1)
        return self.seen[place]


def competes_not_yet(since: Tensor, batch: Batch) -> Tensor:
    """Say which of S items, there `since` `[S]`, were not yet there at the time of each example; bool `[B, S]`."""
    return (since > times(batch).unsqueeze(1)).to(batch.target.device)


def sampled_softmax(own: Tensor, drawn: Tensor, *, log_expected: Tensor, hit: Tensor) -> Tensor:
    """``mean_b log(1 + sum_j exp(s_bj - log(S q_j) - s_b))`` over the drawn items that are not the target.

    The sum in the logarithm estimates the full softmax's sum over all other items without bias, since an item is drawn
    ``S q_j`` times on average (Bengio and Senécal 2008; the target itself is certain and stays uncorrected).

    Args:
        own: `[B]`, the targets' scores.
        drawn: `[B, S]`, the scores of the drawn items.
        log_expected: `[S]`, ``log(S q_j)``.
        hit: bool `[B, S]`, where a drawn item is the target, or does not compete.

    Raises:
        ValueError: empty, misshapen or non-finite scores.
    """
    require_scores("own", own, (None,))
    require_scores("drawn", drawn, (len(own), None))
    others = (drawn - log_expected - own.unsqueeze(1)).masked_fill(hit, -torch.inf)
    return F.softplus(torch.logsumexp(others, dim=1).clamp(min=-1e4)).mean()

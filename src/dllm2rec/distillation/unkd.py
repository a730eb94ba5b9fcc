"""UnKD, unbiased knowledge distillation (Chen et al., WSDM 2023)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.losses.base import Scorer


class UnKDSettings(Settings):
    """UnKD; pairs, groups and temperature are the original's.

    Attributes:
        lambda_d: weight of the term.
        depth: how many of the teacher's items are drawn from.
        groups: G, of items by popularity; the original uses 2 or 4.
        pairs: n, drawn in each group of a list.
        temperature: of the weights ``exp(-r / temperature)``.
    """

    kind: Literal["unkd"] = "unkd"
    lambda_d: Annotated[float, Field(ge=0)] = 1.0
    depth: PositiveInt = 100
    groups: PositiveInt = 2
    pairs: PositiveInt = 30
    temperature: PositiveFloat = 20.0


class UnKDDistiller(ListDistiller):
    """``- mean log sigma(s+ - s-)`` over pairs of items that are about equally popular.

    Items are split by popularity into G groups with the same share of all training interactions. In each group of a
    list, n pairs of different items are drawn with weight ``exp(-r / 20)``, r the place among the listed items of the
    group; the one that the teacher ranks better is s+. So the student learns the teacher's order within a group, and
    not the teacher's taste for what is popular.

    Relations: the pairs are compared as in BPR; RRD and DCD look at whole orders and across groups.

    Deviations: the original ranks the whole catalogue in each group, here the teacher's first `depth` items are all
    that is ranked: a group with fewer than two listed items gives no pair, and the mean is over the pairs there are. A
    sequence takes the place of a user.

    Args:
        lessons: lists of `depth` items.
        popularity: `[V]`, training interactions of each item.
        settings: see there.
    """

    def __init__(self, *, lessons: Lessons, popularity: Tensor, settings: UnKDSettings) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        group = popularity_groups(popularity, count=settings.groups)[lessons.ranked_items.long()]
        order = group.argsort(dim=1, stable=True)
        self.items = lessons.ranked_items.gather(1, order)
        sizes = [(group == number).sum(dim=1) for number in range(settings.groups)]
        self.sizes = torch.stack(sizes, dim=1).repeat_interleave(settings.pairs, dim=1).int()
        starts = self.sizes[:, :: settings.pairs].cumsum(dim=1) - self.sizes[:, :: settings.pairs]
        self.starts = starts.repeat_interleave(settings.pairs, dim=1).int()
        self.pairs = torch.zeros(2, *self.sizes.shape, dtype=torch.int32)

    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Draw the pairs anew."""
        for part in self.lessons.parts():
            sizes, starts = self.sizes[part], self.starts[part]
            better, worse = draw_pairs(sizes, temperature=self.settings.temperature, generator=generator)
            for side, place in enumerate((better, worse)):
                self.pairs[side, part] = self.items[part].gather(1, (starts + place).long() * (sizes > 1))

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each labelled example, `[n]`; 0 for one without any pair."""
        better, worse = self.pairs[:, step.place].long().to(hidden.device)
        scores = scorer.score_items(hidden, torch.cat([better, worse], dim=1))
        there = (self.sizes[step.place] > 1).to(hidden.device)
        losses = F.softplus(-scores[:, : better.shape[1]] + scores[:, better.shape[1] :]) * there
        return losses.sum(dim=1) / there.sum(dim=1).clamp(min=1)


def popularity_groups(popularity: Tensor, *, count: int) -> Tensor:
    """Split items into ``count`` groups that each have about the same share of all interactions.

    Args:
        popularity: `[V]`, interactions of each item; of equally popular items the first leads.
        count: G.

    Returns:
        `[V]` int64, group of each item: 0 has the most popular items.
    """
    order = popularity.argsort(descending=True, stable=True)
    counts = popularity[order].to(torch.float64)
    middle = counts.cumsum(dim=0) - counts / 2
    group = torch.empty_like(order)
    group[order] = (middle * count / counts.sum().clamp(min=1)).long().clamp(max=count - 1)
    return group


def draw_pairs(sizes: Tensor, *, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw two different places of a list with weight ``exp(-r / temperature)``, r from 1.

    A place is drawn by inverting the sum of the weights up to it, which is a geometric series; for the second place the
    first one's share is skipped.

    Args:
        sizes: of the list that each pair is drawn from, any shape.
        temperature: of the weights.
        generator: a CPU generator.

    Returns:
        Places from 0, the better and the worse, each of the shape of ``sizes``; meaningless where a size is below 2.
    """
    decay = torch.tensor(-1.0 / temperature, dtype=torch.float64)
    whole = -torch.expm1(decay * sizes)
    first = _place(torch.rand(sizes.shape, generator=generator, dtype=torch.float64) * whole, sizes, decay)
    share = -torch.expm1(decay) * torch.exp(decay * first)
    rest = torch.rand(sizes.shape, generator=generator, dtype=torch.float64) * (whole - share)
    second = _place(rest + share * (rest >= -torch.expm1(decay * first)), sizes, decay)
    second = torch.where(second == first, torch.where(first + 1 < sizes, first + 1, first - 1), second)  # rounding only
    return torch.minimum(first, second), torch.maximum(first, second)


def _place(mass: Tensor, sizes: Tensor, decay: Tensor) -> Tensor:
    """Return the place from 0 up to which the weights, times ``1 - exp(decay)``, sum to ``mass`` or just above."""
    return torch.minimum((torch.log1p(-mass) / decay).long(), sizes - 1).clamp(min=0)

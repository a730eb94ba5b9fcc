"""RD, ranking distillation (Tang & Wang, KDD 2018, sections 3.2 and 3.3)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.distillation.weights import position_weights
from dllm2rec.losses.base import Scorer


class RDSettings(Settings):
    """RD; the defaults are the original's.

    Attributes:
        lambda_d: weight of the term (alpha there).
        top_k: K, how many of the teacher's items are distilled.
        decay: lambda of the static weights ``exp(-k / lambda)``.
        steepness: mu of the dynamic weights ``tanh(mu (rhat_k - k))``.
        warm_up: epochs with static weights only.
        samples: items that the student's rank is estimated from.
    """

    kind: Literal["rd"] = "rd"
    lambda_d: Annotated[float, Field(ge=0)] = 1.0
    top_k: PositiveInt = 10
    decay: PositiveFloat = 1.0
    steepness: PositiveFloat = 0.1
    warm_up: NonNegativeInt = 10
    samples: PositiveInt = 100


class RDDistiller(ListDistiller):
    """``- sum_{k <= K} w_k log sigma(s_{pi_k})`` over the teacher's first K items ``pi``, the true next item left out.

    ``w_k ~ exp(-k / lambda)``, normalised over the list; after the warm-up times ``max(0, tanh(mu (rhat_k - k)))``,
    which is 0 where the student ranks an item at least as high as the teacher. ``rhat_k = floor(n (V - 1) / S) + 1``
    with n of S sampled items scoring above the item; no gradient passes through it. The S items are drawn anew for
    each sequence in each epoch after the warm-up, uniformly, with replacement.

    Relations: DLLM2Rec's ranking distillation has the same static weights and replaces the dynamic ones by confidence
    and consistency.

    Deviations: a sequence takes the place of a user, so one true item is left out in place of a user's many. The static
    weights start at 1 for the first item that is left (``k`` counts after the true item has gone).

    Args:
        lessons: lists of K items, better K + 1, or else a list that holds the true item is one shorter.
        settings: see there.
    """

    def __init__(self, *, lessons: Lessons, settings: RDSettings) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        self.items, self.kept = leave_out(lessons.ranked_items, lessons.target, count=settings.top_k)
        self.static = position_weights(torch.arange(1, settings.top_k + 1), beta=settings.decay)
        self.sampled: Tensor | None = None

    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Draw the items that ranks are estimated from, once the warm-up is over."""
        self.sampled = None
        if number > self.settings.warm_up:
            shape = len(self.lessons), self.settings.samples
            self.sampled = torch.randint(self.lessons.num_items, shape, generator=generator, dtype=torch.int32)

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each labelled example, `[n]`."""
        scores = scorer.score_items(hidden, self.items[step.place].long().to(hidden.device))
        weights = self.static.to(hidden.device) * self.kept[step.place].to(hidden.device)
        if self.sampled is not None:
            with torch.no_grad():
                others = scorer.score_items(hidden, self.sampled[step.place].long().to(hidden.device))
                ranks = estimate_ranks(scores, others, num_items=self.lessons.num_items)
                weights = weights * dynamic_weights(ranks, steepness=self.settings.steepness)
        return (weights * F.softplus(-scores)).sum(dim=1)


def leave_out(ranked_items: Tensor, target: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Take the first ``count`` items of lists `[P, M]` without the target `[P]`.

    Returns:
        The items `[P, count]`, and bool `[P, count]`: False where a list of exactly ``count`` items held the target.
    """
    ranked = ranked_items[:, : count + 1]
    is_target = ranked == target.unsqueeze(1)
    order = is_target.int().argsort(dim=1, stable=True)[:, :count]
    return ranked.gather(1, order), ~is_target.gather(1, order)


def estimate_ranks(scores: Tensor, others: Tensor, *, num_items: int) -> Tensor:
    """Estimate the ranks of items `[n, K]` among V from the scores `[n, S]` of sampled items, from 1."""
    ordered = others.sort(dim=1).values.contiguous()
    above = others.shape[1] - torch.searchsorted(ordered, scores.detach().contiguous(), right=True)
    return (above * (num_items - 1)).div(others.shape[1], rounding_mode="floor") + 1


def dynamic_weights(ranks: Tensor, *, steepness: float) -> Tensor:
    """Return ``max(0, tanh(mu (rhat_k - k)))`` for ranks `[n, K]` of items in the teacher's order."""
    place = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    return torch.tanh(steepness * (ranks - place)).clamp(min=0.0)

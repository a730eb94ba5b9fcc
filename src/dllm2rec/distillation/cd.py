"""CD, collaborative distillation (Lee et al., ICDM 2019)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.distances import Normalisation, normalise_listed_distances
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.distillation.sampling import draw_distinct
from dllm2rec.losses.base import Scorer


class CDSettings(Settings):
    """CD; temperatures and guidance are the original's.

    Attributes:
        lambda_d: weight of the term.
        depth: how many of the teacher's items are drawn from.
        samples: N, how many are drawn an example.
        temperature: T of the weights ``exp(-r / (N T))``.
        softness: t1 of the targets ``sigma((t + t2) / t1)``.
        shift: t2 of the targets.
        guided: whose ranks r the drawing follows: the `student`'s, anew every epoch, or the `teacher`'s.
        distance_normalisation: `robust` puts the teacher's scores on a scale where sigma says something.
    """

    kind: Literal["cd"] = "cd"
    lambda_d: Annotated[float, Field(ge=0)] = 1.0
    depth: PositiveInt = 100
    samples: PositiveInt = 50
    temperature: PositiveFloat = 20.0
    softness: PositiveFloat = 2.0
    shift: float = 0.0
    guided: Literal["student", "teacher"] = "student"
    distance_normalisation: Normalisation = "robust"


class CDDistiller(ListDistiller):
    """``- mean_i [ q_i log sigma(s_i) + (1 - q_i) log(1 - sigma(s_i)) ]``, ``q_i = sigma((t_i + t2) / t1)``.

    The mean is over N items of the teacher's list, drawn without replacement with weight ``exp(-r / (N T))``. Student-
    guided, r is the place that the student gives an item within the list, as the last epoch left it.

    Relations: RD takes every listed item for wanted; here an item low in the list is half unwanted.

    Deviations: the original draws from the whole catalogue, for which the teacher's scores are not kept: here the
    catalogue is the teacher's first `depth` items. With ``t = -distance`` of a language model, sigma would be 0
    throughout; distances are normalised first, so that ``q = 0.5`` at the median of a list (``t2`` moves it). A
    sequence takes the place of a user. A list shorter than N is taken whole.

    Args:
        lessons: lists of `depth` items.
        settings: see there.
    """

    def __init__(self, *, lessons: Lessons, settings: CDSettings) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        self.count = min(settings.samples, lessons.ranked_items.shape[1])
        self.targets = soft_targets(
            -normalise_listed_distances(lessons.distances, normalisation=settings.distance_normalisation),
            softness=settings.softness,
            shift=settings.shift,
        )
        self.chosen = torch.empty(len(lessons), self.count, dtype=torch.int64)

    @torch.no_grad()
    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Draw places of the lists anew."""
        lessons, settings = self.lessons, self.settings
        for part in lessons.parts():
            listed = lessons.ranked_items[part].long()
            ranks = torch.arange(1, listed.shape[1] + 1).expand(listed.shape)
            if settings.guided == "student":
                ranks = ranks_within(_list_scores(student, lessons.history[part], listed))
            log_weights = -ranks / (settings.samples * settings.temperature)
            self.chosen[part] = draw_distinct(log_weights, self.count, generator=generator)

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each labelled example, `[n]`."""
        chosen = self.chosen[step.place]
        items = self.lessons.ranked_items[step.place].gather(1, chosen).long().to(hidden.device)
        targets = self.targets[step.place].gather(1, chosen).to(hidden)
        scores = scorer.score_items(hidden, items)
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(dim=1)


def soft_targets(teacher: Tensor, *, softness: float, shift: float) -> Tensor:
    """Return ``sigma((t + t2) / t1)`` of the teacher's scores, float32."""
    return torch.sigmoid((teacher + shift) / softness).to(torch.float32)


def ranks_within(scores: Tensor) -> Tensor:
    """Return the rank of each score within its row `[n, M]`, from 1 for the largest."""
    order = scores.argsort(dim=1, descending=True)
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand(order.shape)
    return torch.empty_like(order).scatter_(1, order, places)


def _list_scores(student: Encoder, history: Tensor, listed: Tensor) -> Tensor:
    """Score the listed items `[n, M]` for their histories, without dropout."""
    return student.score_items(student.encode(history), listed).cpu()

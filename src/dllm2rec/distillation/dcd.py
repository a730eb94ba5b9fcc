"""DCD, dual correction distillation (Lee & Kim, CIKM 2021)."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.distillation.permutation import NO_ITEM, score_permutations
from dllm2rec.distillation.sampling import draw_distinct
from dllm2rec.losses.base import Scorer

RANKED_AT_ONCE, SCORES_AT_ONCE = 128, 1 << 22
"""Most examples, and most of their scores, whose ranking is in memory."""
SATURATED = 10.0  # tanh of this is 1 in single precision


class DCDSettings(Settings):
    """DCD; the defaults are the original's.

    Attributes:
        lambda_d: weight of the term.
        depth: M, how many of the teacher's and of the student's items are looked at.
        samples: K, how many under-estimated and how many over-estimated items are drawn, at most.
        temperature: T of the weights ``tanh(max(0, difference of ranks / T))``.
    """

    kind: Literal["dcd"] = "dcd"
    lambda_d: Annotated[float, Field(ge=0)] = 0.01
    depth: PositiveInt = 500
    samples: PositiveInt = 100
    temperature: PositiveFloat = 10.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.samples > self.depth:
            raise ValueError(f"samples is {self.samples}, more than the depth of {self.depth} drawn from")
        return self


class DCDDistiller(ListDistiller):
    """The loss of RRD on what the student ranks wrongly: under-estimated items above over-estimated ones.

    With ``r_T`` and ``r_S`` the ranks by teacher and student, up to K under-estimated items are drawn with weight
    ``tanh(max(0, (r_S - r_T) / T))`` and put in the teacher's order, and up to K over-estimated ones with
    ``tanh(max(0, (r_T - r_S) / T))``, without replacement. The first are the interesting items of `permutation_losses`,
    the second the uninteresting ones. Ranks are of the student as the last epoch left it; both sets are drawn anew in
    every epoch.

    Relations: RRD draws by the teacher's ranks alone. RD's dynamic weights look at the same difference of ranks, one
    item at a time and in one direction.

    Deviations: under-estimated items come from the teacher's first M, over-estimated ones from the student's first M.
    The teacher's ranks beyond M are not kept; there ``r_T`` is taken to be M + 1, the least it can be. Where fewer
    than K items are wrong, fewer are drawn. The correction on the side of the items, where each item ranks the users,
    has no counterpart: the sequences of a next-item task are no fixed set that an item could rank. A sequence takes
    the place of a user.

    Args:
        lessons: lists of `depth` items.
        settings: see there.
    """

    def __init__(self, *, lessons: Lessons, settings: DCDSettings) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        self.under, self.over = (torch.full((len(lessons), settings.samples), NO_ITEM, dtype=torch.int32) for _ in "12")

    @torch.no_grad()
    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Rank the catalogue for every labelled example and draw both sets of items anew."""
        lessons, settings = self.lessons, self.settings
        rows = max(1, min(RANKED_AT_ONCE, SCORES_AT_ONCE // student.num_items))
        for part in lessons.parts(rows):
            scores = student.scores(student.encode(lessons.history[part])).cpu()
            listed = lessons.ranked_items[part].long()
            known = torch.cat([lessons.history[part], lessons.target[part].unsqueeze(1)], dim=1)
            gaps = rank_gaps(scores, listed, known, enough=math.ceil(SATURATED * settings.temperature))
            under, over = (
                draw_distinct(correction_weights(gap, settings.temperature), settings.samples, generator=generator)
                for gap in (gaps.under, gaps.over)
            )
            self.under[part] = _pick(listed, _best_first(under))
            self.over[part] = _pick(gaps.student_items, over)

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each labelled example, `[n]`."""
        under, over = (items[step.place].long().to(hidden.device) for items in (self.under, self.over))
        return score_permutations(scorer, hidden, under, over)


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """How far two rankings of n examples are apart.

    Attributes:
        under: `[n, M]`, ``r_S - r_T`` of the teacher's first M items.
        student_items: `[n, M]`, the student's first M items, best first.
        over: `[n, M]`, ``r_T - r_S`` of the student's first M items.
    """

    under: Tensor
    student_items: Tensor
    over: Tensor


def rank_gaps(scores: Tensor, listed: Tensor, known: Tensor, *, enough: int) -> Gaps:
    """Compare the student's ranking of the catalogue with a teacher's list.

    Args:
        scores: `[n, V]`, the student's.
        listed: `[n, M]`, the teacher's first M items, best first; elsewhere ``r_T`` counts as M + 1.
        known: `[n, X]`, items that are never over-estimated: history and target; V is padding.
        enough: a gap above this need not be exact. Only the student's first ``M + enough`` items are sorted, others
            count as the one that follows.
    """
    items, size = scores.shape[1], listed.shape[1]
    seen = scores.topk(min(items, size + enough), dim=1).indices
    student_rank = torch.full(scores.shape, seen.shape[1] + 1, dtype=torch.int32).scatter_(1, seen, _places(seen))
    teacher_rank = torch.full((len(scores), items + 1), size + 1, dtype=torch.int32)
    teacher_rank.scatter_(1, listed, _places(listed)).scatter_(1, known, 0)
    first = seen[:, :size]
    return Gaps(
        under=student_rank.gather(1, listed) - _places(listed),
        student_items=first,
        over=teacher_rank.gather(1, first) - _places(first),
    )


def correction_weights(gaps: Tensor, temperature: float) -> Tensor:
    """Return the logarithm of ``tanh(max(0, gap / T))``: minus infinity for what is not wrong."""
    return torch.tanh(gaps.clamp(min=0) / temperature).log()


def _places(items: Tensor) -> Tensor:
    return torch.arange(1, items.shape[1] + 1, dtype=torch.int32).expand(items.shape)


def _best_first(drawn: Tensor) -> Tensor:
    """Sort drawn places in each row, with what is `NO_ITEM` at the end."""
    last = torch.iinfo(drawn.dtype).max
    ordered = drawn.masked_fill(drawn == NO_ITEM, last).sort(dim=1).values
    return ordered.masked_fill(ordered == last, NO_ITEM)


def _pick(items: Tensor, places: Tensor) -> Tensor:
    """Return the items at places `[n, K]`, int32; `NO_ITEM` stays."""
    return torch.where(places == NO_ITEM, NO_ITEM, items.gather(1, places.clamp(min=0))).int()

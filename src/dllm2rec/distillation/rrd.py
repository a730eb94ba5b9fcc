"""RRD, relaxed ranking distillation (Kang et al., CIKM 2020, DE-RRD, section 3.2)."""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.distillation.permutation import score_permutations
from dllm2rec.distillation.sampling import draw_by_rank, draw_outside
from dllm2rec.losses.base import Scorer


class RRDSettings(Settings):
    """RRD; the defaults are the original's.

    Attributes:
        lambda_d: weight of the term.
        depth: how many of the teacher's items are drawn from.
        interesting: K, items drawn from the list an example.
        uninteresting: U, items drawn from outside the list an example.
        temperature: T of the weights ``exp(-r / T)``.
    """

    kind: Literal["rrd"] = "rrd"
    lambda_d: Annotated[float, Field(ge=0)] = 1e-3
    depth: PositiveInt = 500
    interesting: PositiveInt = 40
    uninteresting: PositiveInt = 40
    temperature: PositiveFloat = 10.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.interesting > self.depth:
            raise ValueError(f"interesting is {self.interesting}, more than the depth of {self.depth} drawn from")
        return self


class RRDDistiller(ListDistiller):
    """``- sum_{k in K} [ s_k - log( sum_{j >= k} exp s_j + sum_{l in U} exp s_l ) ]`` for each labelled sequence.

    Each epoch, K interesting items are drawn from the teacher's first `depth` with weight ``exp(-r / T)``, without
    replacement, and put in the teacher's order; U uninteresting items are drawn uniformly from outside the list, the
    history and the target. The likelihood is `permutation_losses`.

    Relations: DCD uses the same likelihood on items that the student ranks wrongly; RD sums over single items, this
    one over orders.

    Deviations: a sequence takes the place of a user; uninteresting items are drawn with replacement; the term is a mean
    over the batch as our base loss is, where the original sums both.

    Args:
        lessons: lists of `depth` items.
        settings: see there.
    """

    def __init__(self, *, lessons: Lessons, settings: RRDSettings) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        self.interesting = torch.empty(len(lessons), settings.interesting, dtype=torch.int32)
        self.uninteresting = torch.empty(len(lessons), settings.uninteresting, dtype=torch.int32)

    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Draw both sets of items anew."""
        lessons, settings = self.lessons, self.settings
        for part in lessons.parts():
            listed = lessons.ranked_items[part, : settings.depth].long()
            places = draw_by_rank(
                len(listed),
                depth=settings.depth,
                count=settings.interesting,
                temperature=settings.temperature,
                generator=generator,
            )
            self.interesting[part] = listed.gather(1, places).int()
            known = torch.cat([listed, lessons.history[part], lessons.target[part].unsqueeze(1)], dim=1)
            self.uninteresting[part] = draw_outside(
                known, num_items=lessons.num_items, count=settings.uninteresting, generator=generator
            ).int()

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each labelled example, `[n]`."""
        interesting, uninteresting = (
            items[step.place].long().to(hidden.device) for items in (self.interesting, self.uninteresting)
        )
        return score_permutations(scorer, hidden, interesting, uninteresting)

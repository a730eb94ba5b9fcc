"""The methods that DLLM2Rec is compared with: their settings as one union, what each needs, and how each is built."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm2rec.core.errors import UserError
from dllm2rec.data import Examples
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.cd import CDDistiller, CDSettings
from dllm2rec.distillation.dcd import DCDDistiller, DCDSettings
from dllm2rec.distillation.hint import HintDistiller, HintSettings
from dllm2rec.distillation.htd import HTDDistiller, HTDSettings
from dllm2rec.distillation.lessons import Lessons, take_lessons
from dllm2rec.distillation.rd import RDDistiller, RDSettings
from dllm2rec.distillation.rrd import RRDDistiller, RRDSettings
from dllm2rec.distillation.unkd import UnKDDistiller, UnKDSettings
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.students.item_table import scale_vectors

VectorMethod = HintSettings | HTDSettings
ListMethod = RDSettings | CDSettings | RRDSettings | DCDSettings | UnKDSettings
BaselineSettings = VectorMethod | ListMethod


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How deep a teacher's lists must be.

    Attributes:
        items: that a list must have.
        setting: of the method, by name, that asks for them.
    """

    items: int
    setting: str


def depth_needed(settings: ListMethod) -> Depth:
    """Return how deep the teacher's lists must be for a method."""
    match settings:
        case RDSettings():
            return Depth(items=settings.top_k, setting="top_k")
        case CDSettings() | RRDSettings() | DCDSettings() | UnKDSettings():
            return Depth(items=settings.depth, setting="depth")


def require_needs(settings: BaselineSettings, knowledge: Knowledge) -> None:
    """Check that knowledge holds what a method reads.

    Raises:
        UserError: its lists are too short, or it has no item vectors; the message says how to teach what is missing.
    """
    match settings:
        case HintSettings() | HTDSettings():
            if knowledge.item_vectors is None:
                raise UserError(
                    f"{knowledge.path}: has no item vectors, which method {settings.kind} needs; teach some into "
                    "another --out with `dllm2rec teach --teacher encoder` (or bigrec)"
                )
        case _:
            _require_depth(settings, knowledge)


def _require_depth(settings: ListMethod, knowledge: Knowledge) -> None:
    depth, there = depth_needed(settings), knowledge.manifest.depth
    if there >= depth.items:
        return
    lower = f", or set method.{depth.setting}={there} or less" if there else ""
    raise UserError(
        f"{knowledge.path}: lists {there} items an example, but method {settings.kind} reads {depth.items} "
        f"(method.{depth.setting}); teach deeper lists into another --out with `dllm2rec teach --set "
        f"depth={depth.items}`{lower}"
    )


def build_baseline(
    settings: BaselineSettings,
    *,
    knowledge: Knowledge,
    rows: NDArray[np.int64],
    training: Examples,
    popularity: Tensor,
    dim: int,
    generator: torch.Generator,
) -> list[Distiller]:
    """Build the term that a method adds to the base loss; none if its weight is 0.

    Args:
        settings: the method.
        knowledge: of the teacher.
        rows: for each training example its row in the labels, or -1, from `align`.
        training: the training examples.
        popularity: `[V]`, training interactions of each item.
        dim: D of the student.
        generator: draws the first weights of a method that has some.

    Raises:
        UserError: the knowledge lacks what the method reads.
    """
    require_needs(settings, knowledge)
    if settings.lambda_d == 0.0:
        return []
    match settings:
        case HintSettings() | HTDSettings():
            return [_on_vectors(settings, knowledge=knowledge, dim=dim, generator=generator)]
        case _:
            lessons = _lessons(settings, knowledge=knowledge, rows=rows, training=training)
            return [_on_lists(settings, lessons=lessons, popularity=popularity)]


def _on_vectors(
    settings: VectorMethod, *, knowledge: Knowledge, dim: int, generator: torch.Generator
) -> HintDistiller | HTDDistiller:
    assert knowledge.item_vectors is not None  # noqa: S101 - checked before
    vectors = scale_vectors(torch.from_numpy(knowledge.item_vectors), settings.vector_scaling)
    match settings:
        case HintSettings():
            return HintDistiller(vectors=vectors, dim=dim, settings=settings, generator=generator)
        case HTDSettings():
            return HTDDistiller(vectors=vectors, dim=dim, settings=settings, generator=generator)


def _lessons(settings: ListMethod, *, knowledge: Knowledge, rows: NDArray[np.int64], training: Examples) -> Lessons:
    if not bool((rows >= 0).any()):
        raise UserError(
            f"{knowledge.path}: labels no training example, and method {settings.kind} learns from their lists; "
            "label some with `dllm2rec teach --split train`"
        )
    needed = depth_needed(settings).items + isinstance(settings, RDSettings)  # one more takes the true item's place
    return take_lessons(knowledge.labels, rows=rows, training=training, depth=needed)


def _on_lists(settings: ListMethod, *, lessons: Lessons, popularity: Tensor) -> Distiller:
    match settings:
        case RDSettings():
            return RDDistiller(lessons=lessons, settings=settings)
        case CDSettings():
            return CDDistiller(lessons=lessons, settings=settings)
        case RRDSettings():
            return RRDDistiller(lessons=lessons, settings=settings)
        case DCDSettings():
            return DCDDistiller(lessons=lessons, settings=settings)
        case UnKDSettings():
            return UnKDDistiller(lessons=lessons, popularity=popularity, settings=settings)

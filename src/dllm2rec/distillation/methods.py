"""The methods by which a teacher takes part: their settings as one union, what each needs, and how each is built."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dllm2rec.core.errors import UserError
from dllm2rec.core.settings import Settings
from dllm2rec.data import Examples
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.cd import CDDistiller, CDSettings
from dllm2rec.distillation.dcd import DCDDistiller, DCDSettings
from dllm2rec.distillation.hint import HintDistiller, HintSettings
from dllm2rec.distillation.htd import HTDDistiller, HTDSettings
from dllm2rec.distillation.kar import KARSettings
from dllm2rec.distillation.lessons import Lessons, take_lessons
from dllm2rec.distillation.llm_cf import LLMCFSettings
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.rd import RDDistiller, RDSettings
from dllm2rec.distillation.rrd import RRDDistiller, RRDSettings
from dllm2rec.distillation.settings import DLLM2RecSettings, reads_vectors
from dllm2rec.distillation.soft_labels import SoftLabelDistiller, SoftLabelSettings
from dllm2rec.distillation.unkd import UnKDDistiller, UnKDSettings
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.knowledge.texts import TextKind
from dllm2rec.losses.base import Loss
from dllm2rec.losses.softmax import SoftmaxLoss
from dllm2rec.students.item_table import scale_vectors


class NoMethod(Settings):
    """The plain student: no teacher."""

    kind: Literal["none"] = "none"


class VectorsMethod(Settings):
    """The student reads the teacher's item vectors; none of the teacher's rankings are distilled."""

    kind: Literal["vectors"] = "vectors"


VectorMethod = HintSettings | HTDSettings
ListBaseline = RDSettings | CDSettings | RRDSettings | DCDSettings | UnKDSettings
ListMethod = SoftLabelSettings | DLLM2RecSettings | ListBaseline
BaselineSettings = VectorMethod | ListBaseline
MethodSettings = Annotated[
    NoMethod | VectorsMethod | SoftLabelSettings | DLLM2RecSettings | KARSettings | LLMCFSettings | BaselineSettings,
    Field(discriminator="kind"),
]


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
    """Return how deep the teacher's lists must be for a method; for soft labels, which take any, how far they look."""
    match settings:
        case SoftLabelSettings() | DLLM2RecSettings() | RDSettings():
            return Depth(items=settings.top_k, setting="top_k")
        case CDSettings() | RRDSettings() | DCDSettings() | UnKDSettings():
            return Depth(items=settings.depth, setting="depth")


def reads_item_vectors(settings: MethodSettings) -> bool:
    """Say whether the student has the teacher's vectors in its item table."""
    match settings:
        case VectorsMethod():
            return True
        case DLLM2RecSettings():
            return reads_vectors(settings)
        case SoftLabelSettings():
            return settings.embedding
        case KARSettings():
            return settings.weight > 0
        case NoMethod() | LLMCFSettings() | HintSettings() | HTDSettings():
            return False
        case RDSettings() | CDSettings() | RRDSettings() | DCDSettings() | UnKDSettings():
            return False


def require_needs(settings: MethodSettings, knowledge: Knowledge) -> None:
    """Check that knowledge holds what a method reads.

    Raises:
        UserError: it has no item vectors, lacks texts, or its lists are too short; the message says how to teach what
            is missing.
    """
    match settings:
        case KARSettings():
            _require_texts(knowledge, settings.kind, "item", "user")
        case LLMCFSettings():
            _require_texts(knowledge, settings.kind, "chain")
        case _:
            if (reads_item_vectors(settings) or _on_vectors(settings)) and knowledge.item_vectors is None:
                may_do_without = isinstance(settings, SoftLabelSettings | DLLM2RecSettings)
                raise UserError(
                    f"{knowledge.path}: has no item vectors, which method {settings.kind} needs; "
                    f"{'set method.embedding=false or ' if may_do_without else ''}teach some into another --out with "
                    "`dllm2rec teach --teacher blend` (which labels, too), or encoder"
                )
            if isinstance(settings, ListMethod) and _reads_lists(settings, knowledge):
                _require_depth(settings, knowledge)


def _require_texts(knowledge: Knowledge, method: str, *kinds: TextKind) -> None:
    for kind in kinds:
        if kind not in knowledge.texts:
            name = {"item": "items", "user": "users", "chain": "examples (chains of thought)"}[kind]
            raise UserError(
                f"{knowledge.path}: has no texts about {name}, which method {method} reads; have some written into "
                "another --out with `dllm2rec teach --teacher texts`"
            )


def _require_depth(settings: ListMethod, knowledge: Knowledge) -> None:
    depth, there = depth_needed(settings), knowledge.manifest.depth
    if there >= depth.items or (there and isinstance(settings, SoftLabelSettings)):
        return
    lower = f", or set method.{depth.setting}={there} or less" if there else _instead(settings)
    raise UserError(
        f"{knowledge.path}: lists {there} items an example, but method {settings.kind} reads {depth.items} "
        f"(method.{depth.setting}); teach deeper lists into another --out with `dllm2rec teach --set "
        f"depth={depth.items}`{lower}"
    )


def _reads_lists(settings: ListMethod, knowledge: Knowledge) -> bool:
    """Say whether a term on lists is added; where a teacher has none, dllm2rec distils its item vectors alone."""
    weight = settings.weight if isinstance(settings, SoftLabelSettings) else settings.lambda_d
    return weight > 0 and (knowledge.manifest.depth > 0 or not isinstance(settings, DLLM2RecSettings))


def _instead(settings: ListMethod) -> str:
    """Say how to learn from item vectors alone."""
    match settings:
        case SoftLabelSettings():
            return ", or take method vectors"
        case DLLM2RecSettings():
            return ", or set method.lambda_d=0 to distil its item vectors alone"
        case _:
            return ""


def build_method(
    settings: MethodSettings,
    *,
    knowledge: Knowledge,
    rows: NDArray[np.int64],
    training: Examples,
    loss: Loss,
    popularity: Tensor,
    dim: int,
    generator: torch.Generator,
) -> list[Distiller]:
    """Build the terms that a method adds to the base loss; none of weight 0, and none for what is in the student.

    Args:
        settings: the method.
        knowledge: of the teacher.
        rows: for each training example its row in the labels, or -1, from `align`.
        training: the training examples.
        loss: the base loss.
        popularity: `[V]`, training interactions of each item.
        dim: D of the student.
        generator: draws the initial weights of a method that has some.

    Raises:
        UserError: the knowledge lacks what the method reads, or the base loss does not go with it.
    """
    require_needs(settings, knowledge)
    found: list[Distiller] = []
    if isinstance(settings, ListMethod) and _reads_lists(settings, knowledge):
        lessons = _lessons(settings, knowledge=knowledge, rows=rows, training=training)
        found.append(_build_on_lists(settings, lessons=lessons, loss=loss, popularity=popularity))
    on_vectors = _on_vectors(settings)
    if on_vectors is not None and on_vectors.lambda_d > 0.0:
        found.append(_build_on_vectors(on_vectors, knowledge=knowledge, dim=dim, generator=generator))
    return found


def _on_vectors(settings: MethodSettings) -> VectorMethod | None:
    """Return what adds a term on item vectors, if anything does; within dllm2rec in place of embedding distillation."""
    match settings:
        case HintSettings() | HTDSettings():
            return settings
        case DLLM2RecSettings(embedding="hint"):
            return HintSettings()
        case DLLM2RecSettings(embedding="htd"):
            return HTDSettings()
        case _:
            return None


def _build_on_vectors(
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
            f"label some with `dllm2rec teach --split train`{_instead(settings)}"
        )
    needed = depth_needed(settings).items + isinstance(settings, RDSettings)  # one more takes the true item's place
    return take_lessons(knowledge.labels, rows=rows, training=training, depth=needed)


def _build_on_lists(settings: ListMethod, *, lessons: Lessons, loss: Loss, popularity: Tensor) -> Distiller:  # noqa: PLR0911 - one a method
    match settings:
        case DLLM2RecSettings():
            return RankingDistiller(lessons=lessons, settings=settings, loss=loss)
        case SoftLabelSettings():
            if not isinstance(loss, SoftmaxLoss):
                raise UserError("method soft-labels shares out one softmax; set loss.kind=softmax")
            return SoftLabelDistiller(lessons=lessons, settings=settings, loss=loss)
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

"""From settings to a student."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dllm2rec.students.base import Student
from dllm2rec.students.caser import Caser, CaserSettings
from dllm2rec.students.gru4rec import GRU4Rec, GRU4RecSettings
from dllm2rec.students.sasrec import SASRec, SASRecSettings

StudentSettings = Annotated[GRU4RecSettings | SASRecSettings | CaserSettings, Field(discriminator="kind")]


def build_student(
    settings: StudentSettings,
    *,
    num_items: int,
    history: int,
    item_vectors: Tensor | None,
    generator: torch.Generator,
) -> Student:
    """Build a student with first weights from ``generator``; the global random state stays as it is.

    Args:
        settings: which student, and how.
        num_items: V.
        history: L.
        item_vectors: text vectors `[V, Dt]` for embedding distillation, or None for a plain student.
        generator: a CPU generator.

    Raises:
        ValueError: the item vectors have a wrong shape or are not finite.
    """
    with torch.random.fork_rng(devices=[]):
        student = _construct(settings, num_items=num_items, history=history, item_vectors=item_vectors)
    student.initialise(generator)
    return student


def _construct(settings: StudentSettings, *, num_items: int, history: int, item_vectors: Tensor | None) -> Student:
    table = settings.table(num_items=num_items, item_vectors=item_vectors)
    match settings:
        case SASRecSettings():
            return SASRec(table=table, history=history, blocks=settings.blocks, dropout=settings.dropout)
        case GRU4RecSettings():
            return GRU4Rec(table=table, history=history, layers=settings.layers, dropout=settings.dropout)
        case CaserSettings():
            return Caser(
                table=table,
                history=history,
                heights=settings.heights,
                horizontal_filters=settings.horizontal_filters,
                vertical_filters=settings.vertical_filters,
                dropout=settings.dropout,
            )

"""From settings to a student."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dllm2rec.students.base import Student
from dllm2rec.students.caser import Caser, CaserSettings
from dllm2rec.students.gru4rec import GRU4Rec, GRU4RecSettings
from dllm2rec.students.sasrec import SASRec, SASRecSettings
from dllm2rec.students.transformer import Transformer, TransformerSettings

StudentSettings = Annotated[
    GRU4RecSettings | SASRecSettings | CaserSettings | TransformerSettings, Field(discriminator="kind")
]


def build_student(
    settings: StudentSettings,
    *,
    num_items: int,
    history: int,
    item_vectors: Tensor | None,
    generator: torch.Generator,
    seen: Tensor | None = None,
) -> Student:
    """Build a student with initial weights from ``generator``; the global random state stays as it is.

    Args:
        settings: which student, and how.
        num_items: V.
        history: L.
        item_vectors: text vectors `[V, Dt]` for embedding distillation, or None for a plain student.
        generator: a CPU generator.
        seen: bool `[V]`, which items training sees; needed where `unseen_offset` is not `random`.

    Raises:
        ValueError: the item vectors have a wrong shape or are not finite.
    """
    with torch.random.fork_rng(devices=[]):
        student = _construct(settings, num_items=num_items, history=history, item_vectors=item_vectors)
    student.initialise(generator)
    if settings.unseen_offset != "random" and seen is not None:
        student.table.clear_offsets(~seen)
    return student


def _construct(settings: StudentSettings, *, num_items: int, history: int, item_vectors: Tensor | None) -> Student:
    table = settings.table(num_items=num_items, item_vectors=item_vectors)
    match settings:
        case SASRecSettings():
            return SASRec(table=table, history=history, blocks=settings.blocks, dropout=settings.dropout)
        case TransformerSettings():
            return Transformer(
                table=table,
                history=history,
                blocks=settings.blocks,
                inner=settings.inner,
                dropout=settings.dropout,
            )
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

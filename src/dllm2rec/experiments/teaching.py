"""Verb `teach`: a teacher labels a dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import write_json
from dllm2rec.data import Dataset, Examples
from dllm2rec.experiments.labelling import DONE, finished, request
from dllm2rec.experiments.settings import validate
from dllm2rec.experiments.teacher_settings import (
    BigRecTeacher,
    EncoderTeacher,
    ReferenceTeacher,
    TeacherChoice,
    TeacherSettings,
)
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.bigrec import teach_bigrec
from dllm2rec.teachers.encoder import encode_titles, teach_encoder
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import ItemKNNSettings, PopularitySettings


def teach(dataset: Dataset, settings: TeacherSettings, *, out: Path) -> Knowledge:
    """Let a teacher label a dataset.

    Asked for the same again, it returns what is there; interrupted, it goes on.

    Args:
        dataset: to be labelled.
        settings: which teacher, and how much it labels.
        out: the knowledge directory.

    Raises:
        UserError: the model can't be had, a limit exceeds a split, or something else is at ``out``.
    """
    asked = request(dataset, settings.model_dump(mode="json"))
    knowledge = finished(out, asked)
    if knowledge is None:
        knowledge = _teach(dataset, settings, out)
        write_json(out / DONE, asked)
    return knowledge


def resolve_teacher(table: Mapping[str, Any]) -> TeacherSettings:
    """Check the `[teacher]` table of an experiment.

    Raises:
        UserError: a name or a value is wrong.
    """
    return validate(TeacherChoice, {"teacher": table}).teacher


def _teach(dataset: Dataset, settings: TeacherSettings, out: Path) -> Knowledge:
    match settings:
        case BigRecTeacher():
            return teach_bigrec(
                dataset,
                llm=settings.llm,
                out=out,
                limits=settings.limits.by_split(),
                settings=settings.method(),
                seed=settings.seed,
                revision=settings.revision,
            )
        case EncoderTeacher():
            return teach_encoder(dataset, out=out, model=settings.model, batch_size=settings.batch_size)
        case ReferenceTeacher():
            return label_with_reference(
                dataset,
                settings.reference,
                examples=_chosen(dataset, settings),
                out=out,
                item_vectors=_vectors(dataset, settings),
                train_on=settings.train_on,
                folds=settings.folds,
                depth=settings.depth,
            )


def _chosen(dataset: Dataset, settings: ReferenceTeacher) -> Examples:
    """The first examples of each split, back to back."""
    parts = []
    for split, limit in settings.limits.by_split().items():
        examples = dataset.training_examples(settings.train_on) if split == "train" else dataset.examples(split)
        if limit is not None and limit > len(examples):
            raise UserError(f"limits.{split}: {limit} is more than the {len(examples)} examples to label")
        parts.append(examples.take(np.arange(len(examples) if limit is None else limit)))
    return Examples(
        example_id=np.concatenate([part.example_id for part in parts]),
        user=np.concatenate([part.user for part in parts]),
        history=np.concatenate([part.history for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        time=np.concatenate([part.time for part in parts]),
        num_items=dataset.num_items,
    )


def _vectors(dataset: Dataset, settings: ReferenceTeacher) -> NDArray[np.float32] | None:
    if isinstance(settings.reference, PopularitySettings | ItemKNNSettings):
        return None
    if settings.vectors is None:
        return encode_titles(dataset, model=settings.model)
    knowledge = Knowledge.load(settings.vectors)
    require_same_dataset(knowledge, dataset)
    return knowledge.item_vectors

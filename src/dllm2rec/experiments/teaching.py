"""Verb `teach`: a teacher labels a dataset."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import read_json, write_json
from dllm2rec.data import Dataset, Examples
from dllm2rec.experiments.teacher_settings import BigRecTeacher, EncoderTeacher, ReferenceTeacher, TeacherSettings
from dllm2rec.knowledge.align import align, require_same_dataset
from dllm2rec.knowledge.schema import DamagedError
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.bigrec import TIMING, teach_bigrec
from dllm2rec.teachers.encoder import teach_encoder
from dllm2rec.teachers.reference_teacher import label_with_reference

DONE = "taught.json"


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
    wanted: dict[str, JsonValue] = {"dataset": dataset.content_hash, "teacher": settings.model_dump(mode="json")}
    knowledge = finished(out, wanted)
    if knowledge is None:
        knowledge = _teach(dataset, settings, out)
        write_json(out / DONE, wanted)
    return knowledge


def finished(out: Path, wanted: dict[str, JsonValue]) -> Knowledge | None:
    """Return the knowledge at ``out`` if exactly this was asked for before, was finished, and is still sound."""
    if not (out / DONE).is_file() or read_json(out / DONE) != wanted:
        return None
    try:
        return Knowledge.load(out)
    except DamagedError:
        return None


def seconds_per_1000(knowledge: Knowledge) -> float | None:
    """Return the seconds that the teacher took for 1,000 labels, as measured while it labelled."""
    file = knowledge.path / TIMING
    timing = read_json(file) if file.is_file() else {}
    examples = timing.get("examples", 0)
    return 1000 * timing["seconds"] / examples if examples else None


def unfinished_texts(knowledge: Knowledge) -> int:
    """Return how many of the teacher's texts came to no end within the limit of tokens."""
    file = knowledge.path / TIMING
    return len(read_json(file).get("unfinished", [])) if file.is_file() else 0


def labelled(knowledge: Knowledge, dataset: Dataset, examples: Examples) -> tuple[Examples, Knowledge]:
    """Return the examples that have a label, and their labels in the same order (as knowledge with no other)."""
    rows = align(knowledge, dataset, examples)
    kept = rows >= 0
    part = Knowledge(
        path=knowledge.path,
        manifest=knowledge.manifest,
        labels=knowledge.labels.take(rows[kept]),
        item_vectors=knowledge.item_vectors,
    )
    return examples.take(kept), part


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
                depth=settings.depth,
            )


def _chosen(dataset: Dataset, settings: ReferenceTeacher) -> Examples:
    """The first examples of each split, back to back."""
    parts = []
    for split, limit in settings.limits.by_split().items():
        examples = dataset.examples(split)
        if limit is not None and limit > len(examples):
            raise UserError(f"limits.{split}: {limit} is more than the {len(examples)} examples of the {split} split")
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
    if settings.vectors is None:
        return None
    knowledge = Knowledge.load(settings.vectors)
    require_same_dataset(knowledge, dataset)
    return knowledge.item_vectors

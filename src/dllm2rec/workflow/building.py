"""The student of a run: built with initial weights, or rebuilt with its best ones, and the knowledge that taught it."""

import numpy as np
import torch
from torch import Tensor

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import torch_generator
from dllm2rec.data import Dataset, TrainOn
from dllm2rec.data.demand import measure_demand
from dllm2rec.distillation.kar import KARSettings, fact_vectors, read_with_kar
from dllm2rec.distillation.llm_cf import LLMCFSettings, read_with_llm_cf
from dllm2rec.distillation.methods import reads_item_vectors
from dllm2rec.evaluation.demand import DemandWeights
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import TrainSettings
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.text_neighbours import Directions
from dllm2rec.teachers.references import ItemKNN, ItemKNNSettings, fit_item_knn
from dllm2rec.training.checkpoint import load_student_weights
from dllm2rec.workflow.runs import FitSummary, Run, Source, is_source

FOLLOWERS = ItemKNNSettings(steps=5, backward=0.0, decay=0.6)
"""How a student counts transitions: forward alone, and what followed the newest item most."""


def build(run: Run, dataset: Dataset, knowledge: Knowledge | None) -> Student:
    """Build the student of a run for the catalogue of a dataset, with initial weights."""
    settings, seed = run.config.settings, run.config.seed
    student = build_student(
        settings.student,
        num_items=dataset.num_items,
        history=dataset.manifest.history,
        item_vectors=item_vectors(settings, knowledge),
        generator=torch_generator(seed, "student"),
        seen=popularity_of(dataset, settings) > 0,
    )
    generator = torch_generator(seed, "method")
    match settings.method:
        case KARSettings() as method if knowledge is not None and method.weight > 0:
            read_with_kar(student, knowledge, method, num_users=dataset.manifest.num_users, generator=generator)
        case LLMCFSettings() as method if knowledge is not None and method.weight > 0:
            try:
                read_with_llm_cf(student, knowledge, dataset.examples("train"), method, generator=generator)
            except ValueError as error:
                raise UserError(f"{knowledge.path}: {error}; have more written, or lower method.neighbours") from None
        case _:
            pass
    return student


def load_student(
    run: Run, dataset: Dataset, knowledge: Knowledge | None = None, *, fit: FitSummary | None = None
) -> Student:
    """Return the trained student of a run, a `torch.nn.Module` in evaluation mode, with what validation chose for it.

    Args:
        run: trained.
        dataset: that it was trained on.
        knowledge: that taught it; by default it is looked for where it lay then.
        fit: how training went; by default as the run says.

    Raises:
        UserError: training has not ended, or its knowledge or its weights are gone or damaged.
    """
    knowledge = knowledge_of(run, knowledge)
    student = build(run, dataset, knowledge)
    load_student_weights(student, run.path)
    fit = fit or run.finished().fit
    settle(student, run, dataset, demand=fit.demand, again=fit.again, ever=fit.ever)
    return student.eval()


def settle(
    student: Student,
    run: Run,
    dataset: Dataset,
    *,
    demand: DemandWeights | None = None,
    again: float = 0.0,
    ever: bool = False,
) -> None:
    """Apply to a student with trained weights what follows training: borrowed offsets and demand weights.

    Items that are not of ``dataset``, which come after its own in the student's catalogue, are new. For ``demand``,
    ``again`` and ``ever`` see `FitSummary`.
    """
    settings = run.config.settings
    student.again, student.ever, student.transitions = again, ever, None
    student.table.shift = student.table.near = None
    more = student.num_items - dataset.num_items
    seen = torch.nn.functional.pad(popularity_of(dataset, settings) > 0, (0, more))
    if settings.student.unseen_offset == "neighbours":
        student.table.borrow_offsets(seen)
    elif settings.student.unseen_offset == "zero":  # a loss may have moved them
        student.table.clear_offsets(~seen)
    if demand is not None:
        shift = demand.shift(measure_demand(dataset, learned_from(settings)))
        student.table.shift = torch.from_numpy(np.pad(shift, (0, more), constant_values=demand.new))
        if demand.transitions > 0 and (counted := transitions_of(settings, dataset)) is not None:
            student.transitions = counted.scaled(demand.transitions, num_items=student.num_items)
        if demand.text > 0 and (found := text_directions(student, settings, dataset.num_items)) is not None:
            student.table.near = found.near * demand.text**0.5


def transitions_of(settings: TrainSettings, dataset: Dataset) -> ItemKNN | None:
    """Count what followed each item in the sequences that a student learns from, None where it does not ask."""
    if not settings.student.transitions:
        return None
    sequences = dataset.training_sequences(learned_from(settings))
    return fit_item_knn(FOLLOWERS, sequences, num_items=dataset.num_items)


def text_directions(student: Student, settings: TrainSettings, first: int) -> Directions | None:
    """Return the directions by which a student may count text neighbours, None where it does not.

    ``first`` items are those that it learned with, see `ItemTable.text_directions`.
    """
    size = settings.student.text_neighbours
    return student.table.text_directions(size, first=first) if size is not None and student.table.tied else None


def knowledge_of(run: Run, knowledge: Knowledge | None = None, *, option: str = "") -> Knowledge | None:
    """Return the knowledge that taught a run, None for a plain one.

    Args:
        run: which.
        knowledge: by default it is looked for where it lay then.
        option: how a user says where it is, see `Run.locate`.

    Raises:
        UserError: it is gone, or has changed.
    """
    source = run.config.knowledge
    if source is None:
        if knowledge is not None:
            raise UserError(f"{knowledge.path}: {run.path} is a plain run, which nothing taught; leave --knowledge out")
        return None
    knowledge = knowledge or Knowledge.load(run.locate("knowledge", source, option=option))
    if not is_source(knowledge, source):
        raise UserError(f"{knowledge.path}: is not the knowledge that {run.path} was trained on, or has changed")
    return knowledge


def knowledge_source(knowledge: Knowledge) -> Source:
    """Describe where a run's knowledge came from."""
    return Source(
        path=knowledge.path.resolve(),
        hash=knowledge.content_hash,
        name=knowledge.manifest.name,
        read=knowledge.read_hash,
    )


def item_vectors(settings: TrainSettings, knowledge: Knowledge | None) -> Tensor | None:
    """Return the vectors `[V, Dt]` that the student's item table gets."""
    if knowledge is None or knowledge.item_vectors is None or not reads_item_vectors(settings.method):
        return None
    if isinstance(settings.method, KARSettings):
        return torch.from_numpy(fact_vectors(knowledge, knowledge.manifest.num_items))
    return torch.from_numpy(knowledge.item_vectors)


def require_free_of_texts(run: Run, verb: str) -> None:
    """Check that the student of a run is free of its teacher: one that reads texts is not.

    Raises:
        UserError: it is not.
    """
    method = run.config.settings.method
    if isinstance(method, KARSettings | LLMCFSettings):
        raise UserError(
            f"{run.path}: a student with {method.kind} goes on reading what the language model wrote, so "
            f"`dllm2rec {verb}` can't take it; train one with another method, such as dllm2rec"
        )


def popularity_of(dataset: Dataset, settings: TrainSettings) -> Tensor:
    """Count each item in the sequences that the student learns from, `[V]`, whichever examples were drawn of them."""
    return torch.from_numpy(dataset.train_counts(learned_from(settings)))


def learned_from(settings: TrainSettings) -> TrainOn:
    """Return the sequences that the student's training examples are of."""
    return "positions" if settings.train_on == "examples" else settings.train_on

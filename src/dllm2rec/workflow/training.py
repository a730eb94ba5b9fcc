"""Verb `train`: a student learns, plain or from a teacher."""

from pathlib import Path

import numpy as np
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import exclusive, remove_leftovers
from dllm2rec.core.seeding import torch_generator
from dllm2rec.data import Dataset, Examples
from dllm2rec.data.demand import measure_demand
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.kar import KARSettings
from dllm2rec.distillation.methods import NoMethod, VectorsMethod, build_method
from dllm2rec.distillation.settings import DLLM2RecSettings, adapt_loss, adapt_student
from dllm2rec.evaluation.demand import LEFT_OUT, DemandWeights, choose_demand
from dllm2rec.evaluation.metrics import TOP, summary
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.evaluation.references import score_with_reference
from dllm2rec.knowledge.align import align
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.losses.factory import LossSettings, build_loss
from dllm2rec.losses.softmax import SoftmaxLoss, SoftmaxSettings
from dllm2rec.settings.config import TrainSettings
from dllm2rec.students.base import Student
from dllm2rec.students.text_neighbours import neighbour_scores
from dllm2rec.training import fit
from dllm2rec.workflow.building import (
    build,
    knowledge_source,
    learned_from,
    popularity_of,
    settle,
    text_directions,
    transitions_of,
)
from dllm2rec.workflow.needs import require_knowledge
from dllm2rec.workflow.runs import FitSummary, Run, RunConfig, RunResult, Source, make_config


def train(
    dataset: Dataset,
    settings: TrainSettings,
    *,
    out: Path,
    seed: int = 1,
    knowledge: Knowledge | None = None,
    student: str | None = None,
    method: str | None = None,
) -> Run:
    """Train one student.

    Asked for the same again, it returns what is there; interrupted, it goes on from the last checkpoint, which may lie
    within an epoch.

    Args:
        dataset: to learn from; the test examples are never looked at.
        settings: which student, loss, method, and how long.
        out: the run directory.
        seed: of the initial weights and of training.
        knowledge: of the teacher, where the method needs one.
        student: name for tables; by default the kinds of student and loss.
        method: name for tables; by default its kind and variant.

    Raises:
        UserError: the method needs knowledge or has no use for it, the knowledge does not fit, something else is at
            ``out``, or another process is training there.
    """
    if knowledge is not None and isinstance(settings.method, NoMethod):
        raise UserError("knowledge was given, but method none reads nothing of it; name a method, or leave it out")
    config = plan(dataset, settings, seed=seed, knowledge=knowledge, student=student, method=method)
    with exclusive(Path(out)):
        run = Run.at(Path(out), config)
        if run.result is None:
            remove_leftovers(run.path)
            knowledge = knowledge if config.knowledge else None
            training = dataset.training_examples(config.settings.train_on)
            run.write_result(fit_student(run, build(run, dataset, knowledge), dataset, training, knowledge))
        else:
            run.begin()  # names for tables may be others
    return run


def plan(
    dataset: Dataset,
    settings: TrainSettings,
    *,
    seed: int,
    knowledge: Knowledge | None,
    student: str | None = None,
    method: str | None = None,
) -> RunConfig:
    """Resolve what `train` is asked for, which also names it by a hash; nothing is trained or written.

    Raises:
        UserError: the method needs knowledge, or the knowledge does not fit.
    """
    settings = adapted(settings)
    taught = require_knowledge(settings, knowledge, dataset)
    return make_config(
        student=student or student_name(settings),
        method=method or method_name(settings),
        seed=seed,
        settings=settings,
        dataset=Source(path=dataset.path.resolve(), hash=dataset.content_hash, name=dataset.manifest.name),
        knowledge=None if taught is None else knowledge_source(taught),
    )


def adapted(settings: TrainSettings) -> TrainSettings:
    """Return the settings with student and loss as the method makes them."""
    match settings.method:
        case DLLM2RecSettings() as method:
            student, loss = adapt_student(settings.student, method), adapt_loss(settings.loss, method)
            return settings.model_copy(update={"student": student, "loss": loss})
        case VectorsMethod():  # or what labels add to item vectors would be mixed with what an output layer does
            student = adapt_student(settings.student, DLLM2RecSettings())
            return settings.model_copy(update={"student": student})
        case KARSettings() as method:  # experts that read items and users alike need both on one scale
            student = settings.student.model_copy(update={"vector_scaling": method.vector_scaling})
            return settings.model_copy(update={"student": student})
        case _:
            return settings


def student_name(settings: TrainSettings) -> str:
    """Name a student by its kind, and by its loss or its protocol where that is not the usual one."""
    kind, loss, protocol = settings.student.kind, settings.loss.kind, settings.protocol
    name = kind if loss == ("bce" if protocol == "paper" else "softmax") else f"{kind}+{loss}"
    return name if (kind == "transformer") == (protocol == "strong") else f"{name} ({protocol})"


def method_name(settings: TrainSettings) -> str:
    """Name a method by its kind and variant."""
    match settings.method:
        case NoMethod():
            return "plain"
        case DLLM2RecSettings() as method:
            return f"{method.kind} ({method.variant})"
        case method:
            return method.kind


def fit_student(
    run: Run, student: Student, dataset: Dataset, training: Examples, knowledge: Knowledge | None
) -> RunResult:
    """Train a student as the configuration of its run says, and leave the best weights in the run.

    Args:
        run: begun here, if it is not yet.
        student: with initial weights, or those of an earlier run.
        dataset: gives the validation examples, and what counts as popular or seen.
        training: examples to learn from.
        knowledge: of the teacher; None for a plain student.

    Raises:
        UserError: the settings ask for what is not possible, or training diverged.
    """
    settings = run.config.settings
    popularity = popularity_of(dataset, settings)
    rows = np.full(len(training), -1, np.int64) if knowledge is None else align(knowledge, dataset, training)
    try:
        since = torch.from_numpy(dataset.first_times(learned_from(settings)))
        loss = build_loss(_decided(settings, dataset), popularity=popularity, since=since)
    except ValueError as error:
        raise UserError(str(error)) from None
    distillers: list[Distiller] = []
    if knowledge is not None:
        distillers = build_method(
            settings.method,
            knowledge=knowledge,
            rows=rows,
            training=training,
            loss=loss,
            popularity=popularity,
            dim=settings.student.dim,
            generator=torch_generator(run.config.seed, "method"),
        )
    run.begin()  # not before: what was asked for may not be possible
    left_out = loss.leave_history if isinstance(loss, SoftmaxLoss) else False
    again, ever = LEFT_OUT if left_out else 0.0, left_out == "ever"
    student.again, student.ever = again, ever
    validation, demand = dataset.examples("validation"), None
    progress = fit(
        student=student,
        loss=loss,
        distillers=distillers,
        train=training,
        validation=validation,
        settings=settings.training,
        run=run.path,
        seed=run.config.seed,
    )
    if settings.demand == "validation":
        demand = _choose_demand(run, student, dataset, validation)
        again, ever = demand.again, demand.ever
    settle(student, run, dataset, demand=demand, again=again, ever=ever)
    reached = summary(rank_targets(student.eval(), validation).rank, ks=(TOP,))
    seconds = sum(line["train_seconds"] for line in progress.history)
    told = FitSummary(
        best_epoch=progress.best_epoch,
        epochs_run=progress.epoch,
        seconds=progress.seconds,
        examples_per_second=len(training) * progress.epoch / max(seconds, 1e-9),
        validation=reached,
        labelled=int((rows >= 0).sum()),
        demand=demand,
        again=again,
        ever=ever,
    )
    return RunResult(fit=told)


def _choose_demand(run: Run, student: Student, dataset: Dataset, validation: Examples) -> DemandWeights:
    """Ask validation which demand a student with trained weights should follow; it follows none meanwhile."""
    settings = run.config.settings
    settle(student, run, dataset)
    found, counted = text_directions(student, settings, dataset.num_items), transitions_of(settings, dataset)
    return choose_demand(
        student.eval(),
        validation,
        measure_demand(dataset, learned_from(settings)),
        text=None if found is None else neighbour_scores(found.near),
        transitions=None if counted is None else score_with_reference(counted),
    )


def _decided(settings: TrainSettings, dataset: Dataset) -> LossSettings:
    """Decide by all training examples whether a softmax leaves histories out, where that is open."""
    loss = settings.loss
    if not isinstance(loss, SoftmaxSettings) or loss.leave_history is not None:
        return loss
    examples = dataset.training_examples(settings.train_on)
    return loss.model_copy(update={"leave_history": "ever" if examples.returns_are_rare else examples.repeats_are_rare})

"""Verb `update`: a trained student goes on with newer events, and stays only if it is no worse for it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dllm2rec.core.errors import RefusedError, UserError
from dllm2rec.core.figures import figure, p_text
from dllm2rec.core.files import (
    atomic_path,
    exclusive,
    hash_file,
    read_json,
    remove_leftovers,
    require_fresh_directory,
    write_json,
)
from dllm2rec.core.progress import Say
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Columns, Dataset, Examples, extend
from dllm2rec.data.directory import read_table_file
from dllm2rec.evaluation.metrics import METRIC, TOP, ndcg, summary
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.evaluation.significance import SIGNIFICANT, paired_permutation_test
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import TrainSettings
from dllm2rec.settings.update import UpdateSettings
from dllm2rec.students.base import Student
from dllm2rec.students.growth import grow
from dllm2rec.teachers.merging import MERGED
from dllm2rec.training.checkpoint import LATEST
from dllm2rec.training.runlog import FILE as LOG
from dllm2rec.workflow.building import (
    build,
    item_vectors,
    knowledge_of,
    knowledge_source,
    load_student,
    require_free_of_texts,
    settle,
)
from dllm2rec.workflow.evaluating import dataset_of, evaluate
from dllm2rec.workflow.preparing import repeated_rows, to_come
from dllm2rec.workflow.runs import MARKER as RUN
from dllm2rec.workflow.runs import RESULT, REVISION, Run, RunResult, Source, make_config
from dllm2rec.workflow.teaching import teach_only_new
from dllm2rec.workflow.training import fit_student

MARKER = "update.json"
OUTCOME = "outcome.json"
DATASET = "dataset"
KNOWLEDGE = "knowledge"
FITTED_TO_ALL = ("retrieval", MERGED)
"""Teachers whose labels of old examples change with what is new."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a student learns from."""

    dataset: Dataset
    knowledge: Knowledge | None


@dataclass(frozen=True, kw_only=True)
class Update:
    """What an update gave.

    Attributes:
        run: the new run directory, which holds its dataset and knowledge.
        new_events: that joined the log.
        new_items: that joined the catalogue.
        learned: examples that training had not seen before.
        replayed: examples that it had.
        old: metrics of the old student on the newest tenth of the new events, new items by their text alone.
        new: metrics of the new one.
        examples: that they were measured on.
        p_value: of the difference in NDCG@20, paired permutation test.
    """

    run: Run
    new_events: int
    new_items: int
    learned: int
    replayed: int
    old: dict[str, float]
    new: dict[str, float]
    examples: int
    p_value: float


def update(
    run: Run,
    interactions: Path,
    *,
    out: Path,
    items: Path | None = None,
    knowledge: Knowledge | None = None,
    settings: UpdateSettings | None = None,
    force: bool = False,
    columns: Columns | None = None,
    say: Say = lambda _: None,
) -> Update:
    """Continue training on newer events; a student that is worse for it than the old one is refused.

    The new run has a dataset of its own (see `extend`) and, where a teacher takes part, knowledge of its own: the old
    labels, and labels for what is new. Interrupted and started again, it goes on.

    Args:
        run: finished.
        interactions: events that are newer than those of the run's dataset; known ones are passed over.
        out: the new run directory.
        items: ids and titles of items that are new.
        knowledge: of the extended dataset, where it was taught elsewhere (see `teach_only_new`).
        settings: see there.
        force: keep the new student even if it is worse.
        columns: names of columns; those that are not given are as in the log of the run's dataset.
        say: told in words that an update that was refused gives way, and which events are left out or repeat.

    Raises:
        UserError: an input is at fault, and then all stays as it was; something else is at ``out``, or another process
            is updating there.
        RefusedError: the new student is worse: then what was made stays, unfinished, until the same with ``force``
            finishes it, or another update takes its place.
    """
    run.finished()
    require_free_of_texts(run, "update")
    if knowledge is not None and run.config.knowledge is None:
        raise UserError(f"{run.path}: no teacher took part in it, so {knowledge.path} can't; leave --knowledge out")
    settings, columns = settings or UpdateSettings(), columns or Columns()
    asked = _request(run, interactions, items, knowledge, settings)
    before = Material(dataset=dataset_of(run), knowledge=knowledge_of(run))
    with exclusive(out):
        if (out / MARKER).exists():
            remove_leftovers(out)
        with _begun(out, asked, say) as place:
            dataset = extend(before.dataset, interactions, items, out=place / DATASET, columns=columns)
            if (dropped := dataset.manifest.dropped) is not None and dropped.events:
                say(f"{interactions}: {dropped.events:,} events of unknown items are left out")
            if repeats := repeated_rows(dataset) - repeated_rows(before.dataset):
                say(
                    f"{interactions}: {repeats:,} new rows repeat user, item and time of another: kept, as in the "
                    "dataset before; if they are copies, remove them from the file"
                )
            known, times = (
                read_table_file(one.path, "interactions", "time")["time"] for one in (before.dataset, dataset)
            )
            for line in to_come(times.filter(times > known.max())):
                say(f"{interactions}: {line}")
            training, learned = _training(run, before.dataset, dataset, settings)
            if not learned:
                raise UserError(f"{interactions}: nothing new to learn from: its events are all held out; collect more")
            if knowledge is not None:
                require_same_dataset(knowledge, dataset)
        dataset = Dataset.load(out / DATASET)
        after = Material(dataset=dataset, knowledge=_teach(dataset, before.knowledge, knowledge, out))
        updated = _plan(run, after, out, settings)
        result = updated.result or _fit(updated, run, before, after, training)
        outcome = _judge(updated, result, after, grown(run, before, after), force=force)
    return Update(
        run=updated,
        new_events=dataset.manifest.num_interactions - before.dataset.manifest.num_interactions,
        new_items=dataset.num_items - before.dataset.num_items,
        learned=learned,
        replayed=len(training) - learned,
        **outcome,
    )


def grown(run: Run, before: Material, after: Material) -> Student:
    """Return the student of a run with the larger catalogue of an extended dataset, untrained on what is new.

    Args:
        run: finished.
        before: its own.
        after: an extension of that.
    """
    student = _grow(build(run, after.dataset, after.knowledge), run, before, after)
    fit = run.finished().fit
    settle(student, run, before.dataset, demand=fit.demand, again=fit.again, ever=fit.ever)
    return student


def _request(
    run: Run, interactions: Path, items: Path | None, knowledge: Knowledge | None, settings: UpdateSettings
) -> dict[str, Any]:
    """Describe what is asked for."""
    for file in (interactions, *([] if items is None else [items])):
        if not file.is_file():
            raise UserError(f"{file}: no such file")
    return {
        "run": run.config.hash,
        "interactions": hash_file(interactions),
        "items": None if items is None else hash_file(items),
        "knowledge": None if knowledge is None else knowledge.content_hash,
        "settings": settings.model_dump(mode="json"),
        "revision": REVISION,
    }


@contextmanager
def _begun(out: Path, asked: dict[str, Any], say: Say) -> Iterator[Path]:
    """Yield the directory of the extended dataset, to be made or checked there; all stays as it was if that fails.

    A refused update that is there gives way afterwards. Where nothing but the settings are others, its dataset and its
    labels stay, which do not depend on them.

    Raises:
        UserError: another update is there, or something else.
    """
    require_fresh_directory(out, marker=MARKER)
    begun = (out / MARKER).exists()
    different = _differences(out, asked) if begun else []
    if different and not _was_refused(out):
        raise UserError(
            f"{out}: holds another update (other {', '.join(different)}); choose another --out or remove it"
        )
    if begun and set(different) <= {"settings"}:
        yield out
        for name in (RUN, Path(LATEST).parts[0], LOG) if different else ():
            _remove(out / name)
        write_json(out / MARKER, asked)
        if different:
            _remove(out / OUTCOME)  # not before: until now it was the refused update
    else:
        with atomic_path(out.resolve()) as place:
            place.mkdir()
            yield place
            write_json(place / MARKER, asked)
            _remove(out.resolve())
    if different:
        say(f"{out}: the update there, which was refused, gives way to this one (other {', '.join(different)})")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _was_refused(out: Path) -> bool:
    """Whether the old student stayed; an update that is killed before it says so is another one that has not ended."""
    outcome = read_json(out / OUTCOME) if (out / OUTCOME).exists() else {"refused": False}
    return bool(outcome.get("refused", not (out / RESULT).exists()))


def _differences(out: Path, asked: dict[str, Any]) -> list[str]:
    """Name what is asked for otherwise than before."""
    there = read_json(out / MARKER)
    if not (out / KNOWLEDGE).exists():  # what was refused for want of knowledge goes on with some
        there = {**there, "knowledge": asked["knowledge"]}
    elif asked["knowledge"] is not None:
        there = {**there, "knowledge": Knowledge.load(out / KNOWLEDGE).content_hash}
    return [name for name, value in asked.items() if there.get(name) != value]


def _teach(dataset: Dataset, old: Knowledge | None, given: Knowledge | None, out: Path) -> Knowledge | None:
    if old is None:
        return None
    if given is not None:
        if not (out / KNOWLEDGE).exists():
            with atomic_path(out / KNOWLEDGE) as target:
                shutil.copytree(given.path, target)
        return Knowledge.load(out / KNOWLEDGE)
    if old.manifest.teacher in FITTED_TO_ALL:
        raise UserError(
            f"{old.path}: a {old.manifest.teacher} teacher is fitted to all that it labels, so what is new can't be "
            f"labelled alone; teach {dataset.path} anew (`dllm2rec teach {dataset.path} --teacher ...`), and update "
            "again with --knowledge"
        )
    return teach_only_new(dataset, old, out=out / KNOWLEDGE)


def _plan(run: Run, after: Material, out: Path, settings: UpdateSettings) -> Run:
    """Describe the new run: the old one's settings, but for how long and how fast."""
    cell, dataset, knowledge = run.config.settings, after.dataset, after.knowledge
    training = cell.training
    values = cell.model_dump()
    values["training"] = {
        **values["training"],
        "epochs": settings.epochs,
        "learning_rate": training.learning_rate * settings.rate,
        "patience": settings.patience,
    }
    config = make_config(
        student=run.config.student,
        method=run.config.method,
        seed=run.config.seed,
        settings=TrainSettings.model_validate(values),
        dataset=Source(path=dataset.path.resolve(), hash=dataset.content_hash, name=dataset.manifest.name),
        knowledge=None if knowledge is None else knowledge_source(knowledge),
        continues=run,
        replay=settings.replay,
    )
    return Run(out, config)


def _fit(updated: Run, run: Run, before: Material, after: Material, training: Examples) -> RunResult:
    student = _grow(build(updated, after.dataset, after.knowledge), run, before, after)
    return fit_student(updated, student, after.dataset, training, after.knowledge)


def _grow(student: Student, run: Run, before: Material, after: Material) -> Student:
    cell = run.config.settings
    try:
        grow(
            student,
            load_student(run, before.dataset, before.knowledge),
            scaling=cell.student.vector_scaling,
            item_vectors=item_vectors(cell, after.knowledge),
            trained_vectors=item_vectors(cell, before.knowledge),
        )
    except ValueError as error:
        raise UserError(f"{run.path}: can't go on with this knowledge ({error}); train a new student on it") from None
    return student.eval()


def _training(run: Run, before: Dataset, dataset: Dataset, settings: UpdateSettings) -> tuple[Examples, int]:
    """Choose what is learned: all since the old run's validation began, and some of what it learned from."""
    train_on = run.config.settings.train_on
    available = dataset.training_examples(train_on)
    known = np.isin(available.example_id, before.training_examples(train_on).example_id)
    held_out = available.time >= before.cut  # not what the old split left out
    new, old = np.flatnonzero(~known & held_out), np.flatnonzero(known)
    count = min(len(old), round(settings.replay * len(new)))
    replayed = numpy_generator(run.config.seed, "replay").choice(old, size=count, replace=False)
    return available.take(np.sort(np.concatenate([new, replayed]))), len(new)


def _judge(updated: Run, result: RunResult, after: Material, old: Student, *, force: bool) -> dict[str, Any]:
    """Compare both students on the newest events; writes the result if the new one stays."""
    test = after.dataset.examples("test")
    student = load_student(updated, after.dataset, after.knowledge, fit=result.fit)
    ranks = [rank_targets(one, test).rank for one in (old, student)]
    was, now = (summary(rank, ks=(TOP,)) for rank in ranks)
    p_value = paired_permutation_test(
        ndcg(ranks[1], TOP),
        ndcg(ranks[0], TOP),
        user=test.user,
        generator=numpy_generator(updated.config.seed, "update"),
    )
    outcome: dict[str, Any] = {"old": was, "new": now, "examples": len(test), "p_value": p_value}
    if updated.result is None:  # else it was taken before, and one may be adding an evaluation to it
        refused = now[METRIC] < was[METRIC] and not force
        write_json(updated.path / OUTCOME, {**outcome, "forced": force, "refused": refused})
        if refused:
            chance = "" if p_value < SIGNIFICANT else ", so it may be chance"
            raise RefusedError(
                f"{updated.path}: on the newest {len(test):,} events the updated student has {METRIC} "
                f"{figure(now[METRIC])}, the old one {figure(was[METRIC])} ({p_text(p_value)}{chance}); keep the old "
                "one, try other --set or newer events, or take it with --force"
            )
        updated.write_result(result)
    evaluate(updated, dataset=after.dataset, knowledge=after.knowledge)
    return outcome

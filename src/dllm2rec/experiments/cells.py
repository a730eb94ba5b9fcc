"""The cells of an experiment, each a student with a method: searched, trained and evaluated, one by one or at once."""

import re
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_json
from dllm2rec.core.processes import end_with_parent
from dllm2rec.core.progress import silence_progress
from dllm2rec.data import Dataset
from dllm2rec.experiments.stages import Stage, Stages
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import Config, TrainSettings
from dllm2rec.workflow.evaluating import evaluate
from dllm2rec.workflow.runs import RESULT, REVISION, Run
from dllm2rec.workflow.search import Choice, search
from dllm2rec.workflow.training import plan, train

LOOKS_EVERY = 0.5
"""Seconds between looks at what other processes tell."""
_told: "SimpleQueue[Stage] | None" = None
"""Of a process beside others: where the one that started it hears of stages."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A student with a method, by their names."""

    student: str
    method: str

    @property
    def label(self) -> str:
        return f"{self.student}, {self.method}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every stage needs.

    Attributes:
        config: the experiment.
        out: its directory.
        stages: that ran, and the one that runs.
        dataset: prepared.
        teachers: that of the experiment, then sources of it that methods learn from alone.
        knowledge: what each method learns from, by its name; those that learn from nobody are missing.
    """

    config: Config
    out: Path
    stages: Stages
    dataset: Dataset
    teachers: Sequence[Knowledge]
    knowledge: Mapping[str, Knowledge]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What became of a cell.

    Attributes:
        runs: that did not fail.
        choice: what its search tried and chose; None where there was none, or it failed.
    """

    runs: list[Run]
    choice: Choice | None


def train_cells(work: Work, jobs: int, seeds: Sequence[int]) -> list[Trained]:
    """Train every student with every method; a cell that fails is reported, and does not stop the others.

    Args:
        work: what is to be done.
        jobs: cells at once, each in a process of its own.
        seeds: of the runs of each cell; none searches only.

    Raises:
        UserError: a process was killed.
    """
    config = work.config
    cells = [_Cell(student=student, method=method) for student in config.students for method in config.methods]
    if jobs == 1:
        return [_train_cell(work, cell, seeds) for cell in cells]
    paths = {method: work.knowledge[method].path if method in work.knowledge else None for method in config.methods}
    threads = max(1, torch.get_num_threads() // jobs)
    context = get_context("spawn")
    told: SimpleQueue[Stage] = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_alone, initargs=(threads, told)) as pool:
        try:
            futures = [
                pool.submit(_train_cell_alone, config, work.out, (work.dataset.path, paths[cell.method]), cell, seeds)
                for cell in cells
            ]
            waiting: set[Future[Trained]] = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=LOOKS_EVERY)
                while not told.empty():
                    work.stages.take(told.get())
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process that trained was killed, as happens where memory is short; start the same command again, "
                "with fewer --jobs: what is finished is kept"
            ) from None
        except BaseException:
            for child in active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _alone(threads: int, told: "SimpleQueue[Stage]") -> None:
    """Make a process one of several: its share of the processors, no bars of its own, and Ctrl-C is for the first.

    What it does it tells the first, stage by stage.
    """
    global _told  # noqa: PLW0603 - a process of a pool is given what it keeps when it starts
    _told = told
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    silence_progress()


def _train_cell_alone(
    config: Config, out: Path, paths: tuple[Path, Path | None], cell: _Cell, seeds: Sequence[int]
) -> Trained:
    assert _told is not None  # noqa: S101 - see `_alone`
    dataset, knowledge = paths
    stages = Stages(out=out, say=lambda _: None, total=0, keeps_times=False, tell=_told.put)
    work = Work(
        config=config,
        out=out,
        stages=stages,
        dataset=Dataset.load(dataset),
        teachers=(),
        knowledge={} if knowledge is None else {cell.method: Knowledge.load(knowledge)},
    )
    return _train_cell(work, cell, seeds)


def _train_cell(work: Work, cell: _Cell, seeds: Sequence[int]) -> Trained:
    """Search, then train and evaluate every seed; what fails is left out."""
    guard, config = work.stages.guard, work.config
    study = work.out / "studies" / f"{_slug(cell.student)}-{_slug(cell.method)}-{_study_hash(work, cell)}.json"
    trial, lost = partial(_trial, work, cell), partial(_lost, work, cell, study)
    searching = partial(search, config, cell.student, cell.method, trial, study=study, lost=lost)
    searched = guard(f"search {cell.label}", work.out, searching)
    if searched is None:
        return Trained(runs=[], choice=None)
    settings, choice = searched
    runs = [
        guard(f"{cell.label}, seed {seed}", work.out, partial(_train_and_evaluate, work, cell, settings, seed))
        for seed in seeds
    ]
    return Trained(runs=[one for one in runs if one is not None], choice=choice)


def _study_hash(work: Work, cell: _Cell) -> str:
    """Name what a search depends on; a changed one begins a journal of its own."""
    config = work.config
    if config.search is None:
        return ""
    described = [
        config.cell(cell.student, cell.method).model_dump(mode="json"),
        {name: span.model_dump(mode="json") for name, span in config.search.of(cell.method).items()},
        REVISION,
        config.search.seed,  # but not how many trials: more of them go on with the journal
        work.dataset.content_hash,
        work.knowledge[cell.method].content_hash if cell.method in work.knowledge else None,
    ]
    return hash_json(described)[:8]


def _trial(work: Work, cell: _Cell, settings: TrainSettings, change: Mapping[str, Any]) -> Run:
    assert work.config.search is not None  # noqa: S101 - there are trials only where there is a search
    return _train(work, cell, settings, work.config.search.seed, name=_named(cell, change))


def _lost(work: Work, cell: _Cell, study: Path, change: Mapping[str, Any], error: str) -> None:
    work.stages.lose(_named(cell, change), study, f"{error} (kept in {study}: remove it to try again)")


def _named(cell: _Cell, change: Mapping[str, Any]) -> str:
    return f"try {cell.label}, {', '.join(f'{setting}={value}' for setting, value in change.items())}"


def _train_and_evaluate(work: Work, cell: _Cell, settings: TrainSettings, seed: int) -> Run:
    trained = _train(work, cell, settings, seed, name=f"train {cell.label}, seed {seed}")
    mask = work.config.evaluation.mask_history
    work.stages.do(
        f"evaluate {cell.label}, seed {seed}",
        trained.path,
        partial(evaluate, trained, mask_history=mask, dataset=work.dataset),
        cached=trained.finished().evaluated("test", mask_history=mask) is not None,
    )
    return trained


def _train(work: Work, cell: _Cell, settings: TrainSettings, seed: int, *, name: str) -> Run:
    names = {"student": cell.student, "method": cell.method}
    knowledge = work.knowledge.get(cell.method)
    planned = plan(work.dataset, settings, seed=seed, knowledge=knowledge, **names)
    path = work.out / "runs" / f"{_slug(cell.student)}-{_slug(cell.method)}-seed{seed}-{planned.hash[:8]}"
    return work.stages.do(
        name,
        path,
        partial(train, work.dataset, settings, out=path, seed=seed, knowledge=knowledge, **names),
        cached=(path / RESULT).is_file(),
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

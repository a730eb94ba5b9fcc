"""A small search, the same for every student and method: validation alone chooses the trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dllm2rec.experiments.config import CellSettings, Config
from dllm2rec.experiments.dataset_settings import Strict
from dllm2rec.experiments.runs import Run

METRIC = "NDCG@20"
TrainTrial = Callable[[CellSettings], Run]


class Trial(Strict):
    """One trial.

    Attributes:
        change: what it sets, as in the configuration.
        validation: its best validation NDCG@20.
        epochs: that it was trained.
        run: its directory.
    """

    change: dict[str, Any]
    validation: float
    epochs: int
    run: Path


class Choice(Strict):
    """What a search found for one student and method.

    Attributes:
        student: its name.
        method: its name.
        seed: that all trials were trained with.
        trials: in the order of the configuration.
        chosen: index of the best; of equal ones the first.
    """

    student: str
    method: str
    seed: int
    trials: tuple[Trial, ...]
    chosen: int


def search(config: Config, student: str, method: str, train: TrainTrial) -> tuple[CellSettings, Choice | None]:
    """Choose the settings of a cell.

    Args:
        config: the experiment.
        student: name of the student.
        method: name of the method.
        train: trains a trial with the seed of the search.

    Returns:
        The settings; and what was tried, or None where the experiment has no search.
    """
    if config.search is None:
        return config.cell(student, method), None
    candidates = config.trials(student, method)
    trials = [
        _trial(change, train(settings))
        for change, settings in zip(config.search.trials[method], candidates, strict=True)
    ]
    values = [trial.validation for trial in trials]
    chosen = values.index(max(values))
    choice = Choice(student=student, method=method, seed=config.search.seed, trials=tuple(trials), chosen=chosen)
    return candidates[chosen], choice


def _trial(change: dict[str, Any], run: Run) -> Trial:
    fit = run.finished().fit
    return Trial(change=change, validation=fit.validation[METRIC], epochs=fit.epochs_run, run=run.path)

"""The same search for every student and method: optuna proposes, validation alone chooses."""

import logging
import math
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import derive_seed
from dllm2rec.experiments.config import CellSettings, Config, Range
from dllm2rec.experiments.dataset_settings import Strict
from dllm2rec.experiments.runs import Run
from dllm2rec.training.stopping import METRIC

EDGE = 0.05  # of a range
TrainTrial = Callable[[CellSettings], Run]


class Trial(Strict):
    """One trial.

    Attributes:
        change: what it sets, by dotted name.
        validation: its best validation NDCG@20; None where it failed.
        epochs: that it was trained.
        run: its directory.
        error: why it failed.
    """

    change: dict[str, Any]
    validation: float | None = None
    epochs: int = 0
    run: Path | None = None
    error: str | None = None


class Choice(Strict):
    """What a search found for one student and method.

    Attributes:
        student: its name.
        method: its name.
        seed: of the search, and of the training of all trials.
        trials: in order.
        chosen: index of the best; of equal ones the first.
        importance: share of the variance of the validation NDCG@20 that each setting explains (PED-ANOVA); empty
            where there are too few trials to say.
        edges: settings whose best value lies at the edge of its range, so that a wider one may hold a better.
    """

    student: str
    method: str
    seed: int
    trials: tuple[Trial, ...]
    chosen: int
    importance: dict[str, float] = Field(default_factory=dict)
    edges: tuple[str, ...] = ()


def search(
    config: Config, student: str, method: str, train: TrainTrial, *, study: Path
) -> tuple[CellSettings, Choice | None]:
    """Choose the settings of a cell.

    What is proposed follows from the seed of the search, the number of the trial and the results before it. So a search
    that is interrupted goes on, and ends with the same trials.

    Args:
        config: the experiment.
        student: name of the student.
        method: name of the method.
        train: trains a trial with the seed of the search.
        study: journal of the trials.

    Returns:
        The settings; and what was tried, or None where the experiment has no search.

    Raises:
        UserError: every trial failed.
    """
    if config.search is None:
        return config.cell(student, method), None
    ranges, count, seed = config.search.of(method), config.search.trials, config.search.seed
    journal = _open(study)
    done: list[Trial] = []
    for number in range(count):
        frozen = _frozen(journal, number)
        if frozen is None:
            _propose(journal, ranges, number, seed, config.stands(student, method, ranges))
            frozen = _frozen(journal, number)
            assert frozen is not None  # noqa: S101 - it was just proposed
        trial = _try(frozen.params, config, student, method, train)  # what was trained before is only read
        if frozen.state == TrialState.RUNNING:
            failed = trial.validation is None
            journal.tell(number, trial.validation, state=TrialState.FAIL if failed else TrialState.COMPLETE)
        done.append(trial)
    values = [-math.inf if trial.validation is None else trial.validation for trial in done]
    chosen = values.index(max(values))
    if values[chosen] == -math.inf:
        raise UserError(f"{student}, {method}: every trial of the search failed; the last one with: {done[-1].error}")
    choice = Choice(
        student=student,
        method=method,
        seed=seed,
        trials=tuple(done),
        chosen=chosen,
        importance=_importance(journal, ranges),
        edges=tuple(name for name, span in ranges.items() if _at_edge(span, done[chosen].change[name])),
    )
    return config.cell(student, method, done[chosen].change), choice


def _open(study: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    study.parent.mkdir(parents=True, exist_ok=True)
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(study))),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise UserError(f"{study}: not a journal of trials ({error}); remove it, finished trials are kept") from None


def _frozen(study: optuna.Study, number: int) -> FrozenTrial | None:
    trials = study.get_trials(deepcopy=False)
    return trials[number] if number < len(trials) else None


def _propose(
    study: optuna.Study, ranges: Mapping[str, Range], number: int, seed: int, stated: Mapping[str, Any]
) -> None:
    """Add a trial: the next combination of choices; or what the experiment states, and then what TPE proposes."""
    if all(span.choices is not None for span in ranges.values()):
        combinations = list(product(*(span.samples() for span in ranges.values())))
        study.enqueue_trial(dict(zip(ranges, combinations[number % len(combinations)], strict=True)))
    elif number == 0 and all(name in stated and _holds(span, stated[name]) for name, span in ranges.items()):
        study.enqueue_trial(dict(stated))
    derived = derive_seed(seed, "trial", number) % (1 << 31)
    study.sampler = TPESampler(seed=derived, n_startup_trials=5, multivariate=True)
    study.ask({name: _distribution(span) for name, span in ranges.items()})


def _try(change: dict[str, Any], config: Config, student: str, method: str, train: TrainTrial) -> Trial:
    try:
        run = train(config.cell(student, method, change))
    except UserError as error:
        return Trial(change=change, error=str(error))
    fit = run.finished().fit
    return Trial(change=change, validation=fit.validation[METRIC], epochs=fit.epochs_run, run=run.path)


def _distribution(span: Range) -> BaseDistribution:
    if span.choices is not None:
        return CategoricalDistribution(span.choices)
    assert span.low is not None  # noqa: S101 - a range has both ends or choices
    assert span.high is not None  # noqa: S101
    if span.whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(float(span.low), float(span.high), log=span.log)


def _holds(span: Range, value: Any) -> bool:
    if span.choices is not None:
        return value in span.choices
    return isinstance(value, int | float) and span.low <= value <= span.high  # type: ignore[operator]


def _at_edge(span: Range, value: Any) -> bool:
    if span.choices is not None or span.low is None or span.high is None:
        return False
    scale = math.log if span.log else float
    low, high = scale(span.low), scale(span.high)
    place = (scale(value) - low) / (high - low)
    return not EDGE < place < 1 - EDGE


def _importance(study: optuna.Study, ranges: Mapping[str, Range]) -> dict[str, float]:
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    if len(ranges) == 1:
        return dict.fromkeys(ranges, 1.0)
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: round(float(value), 4) for name, value in found.items()}

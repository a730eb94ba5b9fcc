"""The same search for every student and method: optuna proposes, validation alone chooses."""

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
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import BusyError, is_of_files, read_json, write_json
from dllm2rec.core.seeding import derive_seed
from dllm2rec.core.settings import Settings
from dllm2rec.evaluation.metrics import METRIC
from dllm2rec.settings.config import Config, TrainSettings
from dllm2rec.settings.search import Range
from dllm2rec.workflow.runs import Run

EDGE = 0.05  # of a range
TrainTrial = Callable[[TrainSettings, Mapping[str, Any]], Run]
"""Trains a trial by its settings; told what they change."""
Lost = Callable[[Mapping[str, Any], str], object]
"""Told what a trial changed that failed, and why."""


class Trial(Settings):
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


class Choice(Settings):
    """What a search found for one student and method.

    Attributes:
        student: its name.
        method: its name.
        seed: of the search, and of the training of all trials.
        trials: in order.
        chosen: index of the best; of equal ones the first.
        importance: share of the variance of the validation NDCG@20 that each setting explains (PED-ANOVA); empty
            where there are too few trials to say.
        unused: trials that are known, beyond those that were asked for.
        edges: settings whose best value lies at the edge of its range, so that a wider one may hold a better.
    """

    student: str
    method: str
    seed: int
    trials: tuple[Trial, ...]
    chosen: int
    importance: dict[str, float] = Field(default_factory=dict)
    unused: int = 0
    edges: tuple[str, ...] = ()


def search(
    config: Config, student: str, method: str, train: TrainTrial, *, study: Path, lost: Lost = lambda *_: None
) -> tuple[TrainSettings, Choice | None]:
    """Choose the settings of a cell.

    What is proposed follows from the seed of the search, the number of the trial and the results before it. So a search
    that is interrupted goes on, and ends with the same trials.

    Args:
        config: the experiment.
        student: name of the student.
        method: name of the method.
        train: trains a trial with the seed of the search; a trial that failed before is not trained again.
        study: file of the trials that ended.
        lost: told of trials that failed, now or before.

    Returns:
        The settings; and what was tried, or None where the experiment has no search.

    Raises:
        UserError: every trial failed, or another process is training one.
    """
    if config.search is None:
        return config.cell(student, method), None
    ranges, count = config.search.of(method), config.search.trials
    journal, standing = _Journal(study, ranges, config.search.seed), config.stands(student, method, ranges)
    done: list[Trial] = []
    for number in range(count):
        known = number < len(journal.trials)
        change = journal.trials[number].params if known else journal.propose(standing)
        failed = journal.error(number) if known else None
        # what was trained before is only read
        trial = _try(change, config, student, method, train) if failed is None else Trial(change=change, error=failed)
        if trial.error is not None:
            lost(change, trial.error)
        if not known:
            journal.tell(change, trial.validation, trial.error)
        done.append(trial)
    values = [-math.inf if trial.validation is None else trial.validation for trial in done]
    chosen = values.index(max(values))
    if values[chosen] == -math.inf:
        raise UserError(
            f"{student}, {method}: every trial of the search failed; the last one with: {done[-1].error} (kept in "
            f"{study}: remove it to try again)"
        )
    choice = Choice(
        student=student,
        method=method,
        seed=config.search.seed,
        trials=tuple(done),
        chosen=chosen,
        importance=_importance(journal.study, ranges),
        unused=len(journal.trials) - count,
        edges=tuple(name for name, span in ranges.items() if _at_edge(span, done[chosen].change[name])),
    )
    return config.cell(student, method, done[chosen].change), choice


class _Journal:
    """Trials that ended, each kept on disk; the next one follows from them and the seed.

    Args:
        file: `[{"change": ..., "validation": ..., "error": ...}, ...]`; validation is None for a trial that failed.
        ranges: what is searched.
        seed: of the search.

    Raises:
        UserError: the file holds something else.
    """

    def __init__(self, file: Path, ranges: Mapping[str, Range], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file, self._ranges, self._seed = file, ranges, seed
        self._told: list[dict[str, Any]] = []
        self.study = optuna.create_study(direction="maximize")
        known = read_json(file) if file.is_file() else []
        try:
            for one in known:
                self._add(one["change"], one["validation"], one.get("error"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: not a journal of trials ({error}); remove it, finished trials are kept") from None

    @property
    def trials(self) -> list[FrozenTrial]:
        """In order."""
        return self.study.get_trials(deepcopy=False)

    def propose(self, standing: Mapping[str, Any]) -> dict[str, Any]:
        """Return the next combination of choices; or what the experiment states, and then what TPE proposes."""
        number, ranges = len(self.trials), self._ranges
        if all(span.choices is not None for span in ranges.values()):
            combinations = list(product(*(span.samples() for span in ranges.values())))
            return dict(zip(ranges, combinations[number % len(combinations)], strict=True))
        if number == 0 and all(name in standing and _holds(span, standing[name]) for name, span in ranges.items()):
            return dict(standing)
        asked = optuna.create_study(direction="maximize", sampler=self._sampler(number))
        asked.add_trials(self.trials)
        return asked.ask(self._distributions()).params

    def error(self, number: int) -> str | None:
        """Return why a trial failed; None where it did not."""
        error: str | None = self._told[number]["error"]
        return error

    def tell(self, change: dict[str, Any], validation: float | None, error: str | None) -> None:
        """Keep a trial that ended."""
        self._add(change, validation, error)
        write_json(self._file, self._told)

    def _add(self, change: dict[str, Any], validation: float | None, error: str | None) -> None:
        state = TrialState.FAIL if validation is None else TrialState.COMPLETE
        distributions = self._distributions()
        self.study.add_trial(create_trial(params=change, distributions=distributions, value=validation, state=state))
        self._told.append({"change": change, "validation": validation, "error": error})

    def _sampler(self, number: int) -> TPESampler:
        derived = derive_seed(self._seed, "trial", number) % (1 << 31)
        return TPESampler(seed=derived, n_startup_trials=5, multivariate=True)

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: _distribution(span) for name, span in self._ranges.items()}


def _try(change: dict[str, Any], config: Config, student: str, method: str, train: TrainTrial) -> Trial:
    try:
        run = train(config.cell(student, method, change), change)
    except BusyError:  # says nothing of the trial
        raise
    except UserError as error:
        if is_of_files(error):
            raise  # neither does a full disk
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

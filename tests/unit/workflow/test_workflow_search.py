"""The search: as many trials for all, resumed to the same end, failures kept, edges told."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import BusyError, explain_os_error
from dllm2rec.settings.config import Config, TrainSettings
from dllm2rec.settings.parsing import validate
from dllm2rec.workflow.runs import FitSummary, Run, RunResult
from dllm2rec.workflow.search import Choice, search

RATE = {"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


class FakeRun:
    """What a search needs of a run."""

    def __init__(self, value: float) -> None:
        self.path = Path("run")
        self._value = value

    def finished(self) -> RunResult:
        validation = {"NDCG@20": self._value}
        fit = FitSummary(
            best_epoch=1, epochs_run=4, seconds=1, examples_per_second=1, validation=validation, labelled=0
        )
        return RunResult(fit=fit)


def config(trials: int, ranges: dict[str, Any]) -> Config:
    return validate(
        Config,
        {
            "name": "x",
            "protocol": "paper",
            "dataset": {"source": "ml-100k"},
            "students": {"S": {"student": {"kind": "sasrec"}}},
            "methods": {"plain": {"kind": "none"}},
            "search": {"trials": trials, "seed": 5, "ranges": ranges},
        },
    )


def run(
    settings: Config, study: Path, value: Callable[[TrainSettings], float]
) -> tuple[TrainSettings, Choice, list[TrainSettings]]:
    seen: list[TrainSettings] = []

    def train(cell: TrainSettings, change: Mapping[str, Any]) -> Run:
        assert cell == settings.cell("S", "plain", change)
        seen.append(cell)
        return cast("Run", FakeRun(value(cell)))

    chosen, choice = search(settings, "S", "plain", train, study=study)
    assert choice is not None
    return chosen, choice, seen


def near(target: float) -> Callable[[TrainSettings], float]:
    return lambda cell: 1 / (1 + abs(cell.training.learning_rate - target) / target)


def test_it_begins_with_what_the_experiment_states_and_gets_nearer(tmp_path: Path) -> None:
    chosen, choice, seen = run(config(20, RATE), tmp_path / "s.json", near(0.02))
    assert seen[0].training.learning_rate == pytest.approx(1e-3)
    assert len(choice.trials) == 20
    assert choice.chosen == max(range(20), key=lambda index: choice.trials[index].validation or 0)
    assert chosen.training.learning_rate == choice.trials[choice.chosen].change["training.learning_rate"]
    assert 0.008 < chosen.training.learning_rate < 0.05
    assert choice.importance == {"training.learning_rate": 1.0}
    assert choice.edges == ()


def test_interrupted_anywhere_it_ends_with_the_same_trials(tmp_path: Path) -> None:
    ranges = {**RATE, "student.dim": {"low": 8, "high": 64, "whole": True}}
    _, whole, _ = run(config(9, ranges), tmp_path / "whole.json", near(0.02))
    for cut in range(1, 9):
        calls = iter(range(100))

        def interrupted(cell: TrainSettings, calls: Any = calls, cut: int = cut) -> float:
            if next(calls) == cut:
                raise KeyboardInterrupt
            return near(0.02)(cell)

        study = tmp_path / f"{cut}.json"
        with pytest.raises(KeyboardInterrupt):
            run(config(9, ranges), study, interrupted)
        _, again, _ = run(config(9, ranges), study, near(0.02))
        assert again == whole


def test_a_trial_that_another_process_is_training_has_not_failed(tmp_path: Path) -> None:
    def busy(cell: TrainSettings) -> float:
        raise BusyError("run: another dllm2rec is writing there")

    with pytest.raises(BusyError):
        run(config(3, RATE), tmp_path / "s.json", busy)
    assert not (tmp_path / "s.json").exists()


def test_a_trial_that_a_full_disk_ended_has_not_failed(tmp_path: Path) -> None:
    def full(cell: TrainSettings) -> float:
        raise explain_os_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path) from OSError(errno.ENOSPC)

    with pytest.raises(UserError, match="no space left"):
        run(config(3, RATE), tmp_path / "s.json", full)
    assert not (tmp_path / "s.json").exists()


def test_more_trials_go_on_with_those_that_are_there(tmp_path: Path) -> None:
    _, few, _ = run(config(4, RATE), tmp_path / "s.json", near(0.02))
    _, more, _ = run(config(7, RATE), tmp_path / "s.json", near(0.02))
    _, fewer, _ = run(config(3, RATE), tmp_path / "s.json", near(0.02))
    assert more.trials[:4] == few.trials
    assert fewer.trials == few.trials[:3]
    assert (few.unused, more.unused, fewer.unused) == (0, 0, 4)


def test_choices_are_all_tried_in_order_and_again(tmp_path: Path) -> None:
    ranges = {"training.patience": {"choices": [2, 3]}, "student.dim": {"choices": [8, 16]}}
    chosen, choice, seen = run(config(5, ranges), tmp_path / "s.json", lambda cell: cell.student.dim)
    tried = [(cell.training.patience, cell.student.dim) for cell in seen]
    assert tried == [(2, 8), (2, 16), (3, 8), (3, 16), (2, 8)]
    assert choice.chosen == 1  # of equal ones the first
    assert chosen.student.dim == 16


@pytest.mark.parametrize(("target", "edges"), [(1e-4, True), (0.1, True), (0.01, False)])
def test_a_best_value_at_the_edge_of_its_range_is_told(target: float, edges: bool, tmp_path: Path) -> None:
    _, choice, _ = run(config(25, RATE), tmp_path / "s.json", near(target))
    assert choice.edges == (("training.learning_rate",) if edges else ())


def test_failed_trials_are_kept_with_their_reason(tmp_path: Path) -> None:
    def sometimes(cell: TrainSettings) -> float:
        if cell.training.learning_rate > 3e-3:
            raise UserError("training diverged")
        return near(2e-3)(cell)

    chosen, choice, _ = run(config(8, RATE), tmp_path / "s.json", sometimes)
    failed = [trial for trial in choice.trials if trial.error]
    assert failed
    assert all(trial.error == "training diverged" and trial.validation is None for trial in failed)
    assert chosen.training.learning_rate <= 3e-3
    _, again, seen = run(config(8, RATE), tmp_path / "s.json", sometimes)
    assert again == choice
    assert len(seen) == 8 - len(failed)  # a trial that failed is not trained again


def test_when_all_fail_the_search_does(tmp_path: Path) -> None:
    def never(cell: TrainSettings) -> float:
        raise UserError("no")

    with pytest.raises(UserError, match="every trial of the search failed; the last one with: no"):
        run(config(3, RATE), tmp_path / "s.json", never)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not a journal", "not a JSON file"),
        ('{"a": 1}', "not a journal of trials"),
        ('[{"change": {"training.epochs": 3}, "validation": 0.1}]', "not a journal of trials"),
    ],
)
def test_a_journal_that_is_none(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError, match=rf"s\.json: {words}"):
        run(config(3, RATE), tmp_path / "s.json", near(0.02))

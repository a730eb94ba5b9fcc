import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dllm2rec.core.errors import UserError
from dllm2rec.data import GlobalTimeSplit, LeaveOneOutSplit, PaperSplit, SplitSettings
from dllm2rec.data.splits import Positions, sample_positions, split_positions


def positions(times: list[list[int]], settings: SplitSettings) -> dict[str, list[int]]:
    """Split users given by their event times; positions count through all users."""
    lengths = [len(user) for user in times]
    parts = split_positions(
        ordinal=np.concatenate([np.arange(length) for length in lengths]),
        length=np.repeat(lengths, lengths),
        time=np.array([time for user in times for time in user]),
        settings=settings,
    )
    return {part: rows.tolist() for part, rows in parts.items()}


def test_paper_split_takes_the_11th_on_or_the_last() -> None:
    long, ten, one = list(range(100, 118)), list(range(50, 60)), [1]  # 8 targets, 1 target, none
    two = [0, 200]  # 1 target

    parts = positions([long, ten, one, two], PaperSplit())

    # by time: position 27 (time 59), 10..17 (times 110..117), 30 (time 200): 10 examples, cut at 8 and 9
    assert parts == {"train": [27, 10, 11, 12, 13, 14, 15, 16], "validation": [17], "test": [30]}


def test_paper_split_rounds_cuts_down_and_breaks_ties_by_user_order() -> None:
    users = [[0, 5]] * 19  # 19 examples at one time: floor(15.2) = 15, floor(17.1) = 17

    parts = positions(users, PaperSplit())

    assert [len(parts[part]) for part in ("train", "validation", "test")] == [15, 2, 2]
    assert parts["train"] + parts["validation"] + parts["test"] == list(range(1, 38, 2))


def test_paper_split_history_is_its_threshold() -> None:
    assert positions([[1, 2, 3, 4, 5]], PaperSplit(history=2, ratios=(0.4, 0.3, 0.3))) == {
        "train": [2],
        "validation": [3],
        "test": [4],
    }


def test_cuts_are_exact() -> None:
    """In floating point 0.7 + 0.2 < 0.9, so that nine tenths of ten would be eight."""
    parts = positions([[0, time] for time in range(1, 11)], PaperSplit(ratios=(0.7, 0.2, 0.1)))

    assert [len(rows) for rows in parts.values()] == [7, 2, 1]


def test_global_time_gives_equal_times_to_the_later_part() -> None:
    # sorted times: 0 0 1 2 3 4 5 7 7 9; events 5 and 7 (from 0) are at times 4 and 7
    parts = positions([[0, 1, 3, 5, 7], [0, 2, 4, 7, 9]], GlobalTimeSplit(ratios=(0.5, 0.2, 0.3)))

    assert parts == {"train": [1, 6, 2], "validation": [7, 3], "test": [4, 8, 9]}


def test_leave_one_out() -> None:
    parts = positions([[1, 2, 3, 4, 5], [1, 2, 3], [7, 9], [5]], LeaveOneOutSplit())

    assert parts == {"train": [1, 2], "validation": [6, 3], "test": [7, 4, 9]}


def test_leave_one_out_lives_without_times() -> None:
    assert positions([[1] * 4], LeaveOneOutSplit()) == {"train": [1], "validation": [2], "test": [3]}


@pytest.mark.parametrize("settings", [PaperSplit(), GlobalTimeSplit()])
def test_all_events_at_one_time(settings: SplitSettings) -> None:
    with pytest.raises(UserError, match=r"all events are at one time \(5\).*leave-one-out"):
        positions([[5] * 30, [5] * 30], settings)


@pytest.mark.parametrize(
    ("times", "settings", "message"),
    [
        ([[1, 2], [1, 3]], PaperSplit(), r"paper split leaves no validation example: there are 2 examples in all"),
        ([[1], [2], [3]], PaperSplit(), r"no train and no validation and no test example: there are 0 examples"),
        ([[1, 2]], GlobalTimeSplit(), r"global-time split leaves no .*: 2 events at 2 times"),
        ([[1] + [2] * 20], GlobalTimeSplit(), r"global-time split leaves no train and no validation example"),
        ([[1, 2, 3], [1, 2]], LeaveOneOutSplit(), r"no train example: it takes a user with 4 events, .* longest has 3"),
    ],
)
def test_empty_parts(times: list[list[int]], settings: SplitSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        positions(times, settings)


def parts_of(count: int) -> Positions:
    return {"train": np.arange(count), "validation": np.arange(count) + 100, "test": np.arange(count) + 200}


def test_samples_are_seeded_ordered_and_without_repeats() -> None:
    settings = PaperSplit(sample_train=20, sample_test=5, sample_seed=3)

    first, again = sample_positions(parts_of(50), settings), sample_positions(parts_of(50), settings)
    other = sample_positions(parts_of(50), settings.model_copy(update={"sample_seed": 4}))

    assert all(np.array_equal(first[part], again[part]) for part in first)
    assert not np.array_equal(first["train"], other["train"])
    assert len(first["train"]) == 20
    assert len(first["validation"]) == 50
    assert len(first["test"]) == 5
    assert (np.diff(first["train"]) > 0).all()


def test_sample_larger_than_the_part_keeps_all() -> None:
    kept: NDArray[np.int64] = sample_positions(parts_of(5), PaperSplit(sample_train=9))["train"]

    assert kept.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "paper", "histroy": 10},
        {"kind": "paper", "history": 0},
        {"kind": "paper", "ratios": [0.8, 0.1, 0.2]},
        {"kind": "paper", "ratios": [1.0, 0.0, 0.0]},
        {"kind": "paper", "sample_train": 0},
        {"kind": "leave-one-out", "ratios": [0.8, 0.1, 0.1]},
        {"kind": "random"},
    ],
)
def test_bad_settings(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[SplitSettings](SplitSettings).validate_python(value)


def test_settings_survive_json() -> None:
    adapter = TypeAdapter[SplitSettings](SplitSettings)
    for settings in (PaperSplit(sample_test=3), GlobalTimeSplit(history=5), LeaveOneOutSplit(tie_shuffle_seed=1)):
        assert adapter.validate_json(settings.model_dump_json()) == settings

"""Trend and newness of items."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm2rec.data import PaperSplit, read_log, write_dataset
from dllm2rec.data.demand import measure_demand


class Counted:
    """A dataset of which only the training events matter."""

    def __init__(self, items: list[int], num_items: int) -> None:
        self.items, self.num_items = np.array(items, np.int32), num_items

    def training_events(self, train_on: str) -> np.ndarray:
        assert train_on == "before-cut"
        return self.items


def measured(items: list[int], num_items: int, recent: float) -> Any:
    return measure_demand(Counted(items, num_items), "before-cut", recent=recent)  # type: ignore[arg-type]


def test_trend_by_hand() -> None:
    # ten events; the newest fifth are two of item 1
    found = measured([0, 0, 0, 0, 1, 2, 0, 0, 1, 1], 4, 0.2)
    np.testing.assert_allclose(found.trend[:3], np.log([0.2 / (0.2 * 7), 2.2 / (0.2 * 4), 0.2 / (0.2 * 2)]), rtol=1e-6)
    assert found.new.tolist() == [False, False, False, True]
    assert found.trend[3] == 0


def test_steady_demand_has_no_trend_and_the_shift_is_linear() -> None:
    found = measured([0] * 9 + [1] + [0] * 90, 3, 0.1)
    assert abs(found.trend[0]) < 0.1
    np.testing.assert_allclose(found.shift(trend=2.0, new=3.0), 2 * found.trend + [0, 0, 3.0], rtol=1e-6)


def test_only_training_counts(write_log: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    rows = [f"u{user},{item},{1000 * item + user}" for user in range(8) for item in range(1, 6)]
    log = read_log(*write_log("\n".join(rows) + "\n", "".join(f"{item},T{item}\n" for item in range(1, 7))))
    dataset = write_dataset(log, PaperSplit(history=2, ratios=(0.5, 0.25, 0.25)), tmp_path / "dataset", name="small")
    events = dataset.training_events("before-cut")
    sequences = dataset.training_sequences("before-cut")
    np.testing.assert_array_equal(np.sort(events), np.sort(sequences.items))
    later = set(dataset.examples("test").target.tolist())
    assert measure_demand(dataset, "before-cut").new[list(later - set(events.tolist()))].all()
    assert len(events) < len(rows)


@pytest.mark.parametrize("train_on", ["positions", "before-cut"])
def test_events_come_in_time_order(write_log: Callable[..., tuple[Path, Path]], tmp_path: Path, train_on: Any) -> None:
    rows = [f"u{user},{1 + (user + item) % 5},{100 * item - user}" for user in range(6) for item in range(1, 6)]
    log = read_log(*write_log("\n".join(rows) + "\n", "".join(f"{item},T{item}\n" for item in range(1, 6))))
    dataset = write_dataset(log, PaperSplit(history=2, ratios=(0.5, 0.25, 0.25)), tmp_path / "dataset", name="small")
    events = dataset.training_events(train_on)
    # items of step s are (user + s) % 5 for users from the last to the first: each step is a run of falling numbers
    first = [(user + 1) % 5 for user in range(5, -1, -1)]
    assert events[:6].tolist() == first

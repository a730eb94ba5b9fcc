"""No example of a later part leaks into an earlier one, whatever the log."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, GlobalTimeSplit, LeaveOneOutSplit, Log, PaperSplit, SplitSettings, write_dataset
from dllm2rec.data.tables import Tables, build_tables

NUM_ITEMS = 6
PARTS = ("train", "validation", "test")

events = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, NUM_ITEMS - 1), st.integers(0, 12)), min_size=25, max_size=80
)
ratios = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33)])
shared = {
    "history": st.integers(1, 5),
    "tie_shuffle_seed": st.none() | st.integers(0, 9),
    "sample_train": st.none() | st.integers(1, 5),
    "sample_validation": st.none() | st.integers(1, 5),
    "sample_test": st.none() | st.integers(1, 5),
}
time_splits = st.builds(PaperSplit, ratios=ratios, **shared) | st.builds(GlobalTimeSplit, ratios=ratios, **shared)
splits = time_splits | st.builds(LeaveOneOutSplit, **shared)
relaxed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def log_of(rows: list[tuple[int, int, int]]) -> Log:
    interactions = pl.DataFrame(rows, schema={"user": pl.Int64, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(NUM_ITEMS), "item_id": range(NUM_ITEMS), "title": list("abcdef")})
    return Log(interactions, items.cast({"index": pl.Int32}))


def tables_or_skip(rows: list[tuple[int, int, int]], split: SplitSettings) -> Tables:
    try:
        return build_tables(log_of(rows), split)
    except UserError:
        assume(False)
        raise


def each_user(tables: Tables) -> list[tuple[pl.DataFrame, pl.DataFrame, int]]:
    """Events, examples and training length of every user."""
    return [
        (
            tables.interactions.filter(pl.col("user") == user),
            tables.examples.filter(pl.col("user") == user),
            tables.users["training_length"][user],
        )
        for user in range(tables.users.height)
    ]


@relaxed
@given(rows=events, split=splits)
def test_targets_of_a_user_come_part_after_part(rows: list[tuple[int, int, int]], split: SplitSettings) -> None:
    for _, examples, _ in each_user(tables_or_skip(rows, split)):
        ordinals = [examples.filter(pl.col("split") == part)["ordinal"].to_list() for part in PARTS]
        flat = [ordinal for part in ordinals for ordinal in sorted(part)]
        assert flat == sorted(set(flat))


@relaxed
@given(rows=events, split=time_splits)
def test_parts_follow_each_other_in_time(rows: list[tuple[int, int, int]], split: SplitSettings) -> None:
    examples = tables_or_skip(rows, split).examples
    times = [examples.filter(pl.col("split") == part)["time"].to_numpy() for part in PARTS]
    assert times[0].max() <= times[1].min()
    assert times[1].max() <= times[2].min()
    if split.kind == "global-time":
        assert times[0].max() < times[1].min()
        assert times[1].max() < times[2].min()


@relaxed
@given(rows=events, split=splits)
def test_history_is_what_the_user_did_just_before(rows: list[tuple[int, int, int]], split: SplitSettings) -> None:
    for events_of_user, examples, _ in each_user(tables_or_skip(rows, split)):
        items, times = events_of_user["item"].to_list(), events_of_user["time"].to_list()
        assert times == sorted(times)
        for example in examples.iter_rows(named=True):
            ordinal = example["ordinal"]
            assert example["history"] == items[max(0, ordinal - split.history) : ordinal]
            assert example["history"]
            assert (example["target"], example["time"]) == (items[ordinal], times[ordinal])


@relaxed
@given(rows=events, split=splits)
def test_training_length_ends_before_the_first_later_target(
    rows: list[tuple[int, int, int]], split: SplitSettings
) -> None:
    unsampled = split.model_copy(update={"sample_train": None, "sample_validation": None, "sample_test": None})
    sampled = tables_or_skip(rows, split)
    everything = build_tables(log_of(rows), unsampled)
    assert sampled.users.equals(everything.users)
    for _, examples, length in each_user(everything):
        train = examples.filter(pl.col("split") == "train")["ordinal"]
        later = examples.filter(pl.col("split") != "train")["ordinal"]
        assert length == (max(train) + 1 if len(train) else 0)
        assert all(ordinal >= length for ordinal in later)


@relaxed
@given(rows=events, split=splits)
def test_every_event_of_the_log_stays(rows: list[tuple[int, int, int]], split: SplitSettings) -> None:
    tables = tables_or_skip(rows, split)
    users = tables.users["user_id"].to_list()
    stored = [(users[user], item, time) for user, item, time, _ in tables.interactions.iter_rows()]
    assert sorted(stored) == sorted(rows)
    assert tables.examples["example_id"].is_unique().all()
    assert (tables.examples["example_id"] >= 0).all()


@relaxed
@given(rows=events, split=splits, seed=st.integers(0, 99))
def test_example_ids_survive_a_shuffle_of_the_users(
    rows: list[tuple[int, int, int]], split: SplitSettings, seed: int
) -> None:
    plain = LeaveOneOutSplit(history=split.history)
    order = np.random.default_rng(seed).permutation(5)
    moved = [row for user in order for row in rows if row[0] == user]
    first, second = tables_or_skip(rows, plain), tables_or_skip(moved, plain)
    assert set(first.examples["example_id"]) == set(second.examples["example_id"])


@settings(max_examples=15, deadline=None)
@given(rows=events, split=splits)
def test_what_is_written_is_read(rows: list[tuple[int, int, int]], split: SplitSettings) -> None:
    tables = tables_or_skip(rows, split)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(log_of(rows), split, Path(folder) / "data", name="x")
        dataset = Dataset.load(Path(folder) / "data", verify=True)
        assert dataset.manifest.split == split
        sequences = dataset.training_sequences()
        for user, (events_of_user, _, length) in enumerate(each_user(tables)):
            assert sequences[user].tolist() == events_of_user["item"].to_list()[:length]
        for part in PARTS:
            expected = tables.examples.filter(pl.col("split") == part)
            found = dataset.examples(part)
            assert found.example_id.tolist() == expected["example_id"].to_list()
            assert found.history.shape == (expected.height, split.history)
            assert [[i for i in row if i != NUM_ITEMS] for row in found.history.tolist()] == expected[
                "history"
            ].to_list()
            assert all(NUM_ITEMS not in row[np.argmax(row != NUM_ITEMS) :] for row in found.history)


sparse = st.lists(st.tuples(st.integers(0, 9), st.integers(0, NUM_ITEMS - 1), st.integers(0, 12)), min_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(rows=events | sparse, split=splits)
def test_nothing_later_leaks_into_what_students_learn_from(
    rows: list[tuple[int, int, int]], split: SplitSettings
) -> None:
    """Whatever is drawn as an example: a target that is held out is never learned from."""
    unsampled = split.model_copy(update={"sample_train": None, "sample_validation": None, "sample_test": None})
    everything = tables_or_skip(rows, unsampled).examples
    held_out = everything.filter(pl.col("split") != "train")
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(log_of(rows), split, Path(folder) / "data", name="x")
        cut = held_out.filter(pl.col("split") == "validation")["time"].min()
        own = set(dataset.examples("train").example_id.tolist())
        found = {kind: dataset.training_examples(kind) for kind in ("positions", "before-cut")}
        for kind, examples in found.items():
            ids = set(examples.example_id.tolist())
            assert len(ids) == len(examples)
            assert own <= ids
            assert not ids & set(held_out["example_id"].to_list())
            assert (np.diff(examples.time) >= 0).all()
            if split.kind != "leave-one-out":
                assert (examples.time <= cut).all()
            counted = dataset.train_counts(kind)
            assert (counted[examples.target] > 0).all()
            assert (np.append(counted, 1)[examples.history] > 0).all()
        assert set(found["positions"].example_id.tolist()) <= set(found["before-cut"].example_id.tolist())
        early = everything.filter((pl.col("split") == "train") & (pl.col("time") < cut))["example_id"].to_list()
        assert set(early) <= set(found["before-cut"].example_id.tolist())


def test_the_strategies_reach_every_split() -> None:
    """A property that skips everything proves nothing."""
    rows = [(user, (user + step) % NUM_ITEMS, step) for user in range(4) for step in range(12)]
    for split in (PaperSplit(history=3), GlobalTimeSplit(), LeaveOneOutSplit()):
        assert build_tables(log_of(rows), split).examples.height > 0
    with pytest.raises(UserError):
        build_tables(log_of(rows[:2]), PaperSplit())

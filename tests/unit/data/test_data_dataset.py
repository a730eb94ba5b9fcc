import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Examples, LeaveOneOutSplit, Log, PaperSplit, Split, write_dataset

SPLIT = LeaveOneOutSplit(history=3)


def small_log(users: tuple[str, ...] = ("u", "v"), titles: tuple[str, ...] = ("A", "B", "C", "D")) -> Log:
    """Two users, five and four events; item 3 is met in test only."""
    rows = {"u": [(0, 10), (1, 20), (2, 30), (0, 40), (3, 50)], "v": [(2, 11), (2, 21), (1, 31), (0, 41)]}
    events = [(user, item, time) for user in users for item, time in rows[user]]
    interactions = pl.DataFrame(events, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(4), "item_id": ["a", "b", "c", "d"], "title": titles})
    return Log(interactions, items.cast({"index": pl.Int32}))


def test_examples_by_hand(tmp_path: Path) -> None:
    dataset = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    train, test = dataset.examples("train"), dataset.examples("test")

    # u: targets B at 20, C at 30; v: target C at 21
    assert train.time.tolist() == [20, 21, 30]
    assert train.user.tolist() == [0, 1, 0]
    assert train.history.tolist() == [[4, 4, 0], [4, 4, 2], [4, 0, 1]]
    assert train.target.tolist() == [1, 2, 2]
    assert test.history.tolist() == [[2, 2, 1], [1, 2, 0]]
    assert test.target.tolist() == [0, 3]
    assert train.num_items == dataset.num_items == 4
    assert (train.example_id.dtype, train.user.dtype, train.history.dtype) == (np.int64, np.int32, np.int32)
    assert (train.target.dtype, train.time.dtype) == (np.int32, np.int64)
    assert dataset.titles == ["A", "B", "C", "D"]


def test_all_that_was_chosen_before_is_known(tmp_path: Path) -> None:
    dataset = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    train, test = dataset.examples("train"), dataset.examples("test")

    assert test.known().tolist() == [[4, 2, 2, 1], [0, 1, 2, 0]]  # of v at 41, of u at 50
    assert test.known(slice(1)).tolist() == [[2, 2, 1]]
    assert test.take(np.array([1])).known().tolist() == [[0, 1, 2, 0]]
    assert train.known().tolist() == train.history.tolist()
    joined = Examples.join([test, train])
    assert joined.known().tolist() == [*test.known().tolist(), *([4, *row] for row in train.known().tolist())]
    assert dataset.sequences().items[dataset.event_rows(joined)].tolist() == joined.target.tolist()
    assert Examples.join([test, replace(train, past=None)]).past is None


def test_manifest_counts(tmp_path: Path) -> None:
    manifest = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small").manifest

    assert manifest.counts == {"train": 3, "validation": 2, "test": 2}
    assert (manifest.num_users, manifest.num_items, manifest.num_interactions, manifest.history) == (2, 4, 9, 3)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["name"] == "small"


def test_training_sequences_end_at_the_last_training_target(tmp_path: Path) -> None:
    dataset = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    sequences = dataset.training_sequences()

    assert len(sequences) == 2
    assert sequences[0].tolist() == [0, 1, 2]
    assert sequences[1].tolist() == [2, 2]
    assert sequences.times.tolist() == [10, 20, 30, 11, 21]
    assert sequences.in_time().tolist() == dataset.training_events().tolist() == [0, 2, 1, 2, 2]
    assert sequences.of(np.array([False, True])).times.tolist() == [11, 21]
    assert dataset.train_counts().tolist() == [1, 1, 3, 0]
    with pytest.raises(IndexError):
        sequences[2]


def test_sampling_does_not_shorten_the_training_sequences(tmp_path: Path) -> None:
    sampled = write_dataset(
        small_log(), LeaveOneOutSplit(sample_train=1, sample_test=1), tmp_path / "data", name="small"
    )

    assert sampled.manifest.counts == {"train": 1, "validation": 2, "test": 1}
    assert sampled.train_counts().tolist() == [1, 1, 3, 0]


def test_take_keeps_rows_together(tmp_path: Path) -> None:
    train = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small").examples("train")
    taken = train.take(np.array([2, 0]))

    assert len(taken) == 2
    assert taken.example_id.tolist() == train.example_id[[2, 0]].tolist()
    assert taken.target.tolist() == [2, 1]
    assert taken.history.tolist() == [[4, 0, 1], [4, 4, 0]]


def test_example_ids_do_not_depend_on_the_order_of_users_or_the_split(tmp_path: Path) -> None:
    def ids(dataset: Dataset) -> set[int]:
        parts: tuple[Split, ...] = ("train", "validation", "test")
        return {int(value) for part in parts for value in dataset.examples(part).example_id}

    first = write_dataset(small_log(), SPLIT, tmp_path / "a", name="a")
    swapped = write_dataset(small_log(("v", "u")), SPLIT, tmp_path / "b", name="b")
    paper = write_dataset(small_log(), PaperSplit(history=1, ratios=(0.4, 0.3, 0.3)), tmp_path / "c", name="c")

    assert len(ids(first)) == 7
    assert ids(first) == ids(swapped) == ids(paper)


def test_tie_shuffle_is_seeded_and_moves_ties_only(tmp_path: Path) -> None:
    events = [("u", item, item // 10) for item in range(40)] + [("v", item, item) for item in range(4)]
    interactions = pl.DataFrame(events, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(40), "item_id": range(40), "title": [str(item) for item in range(40)]})
    log = Log(interactions, items.cast({"index": pl.Int32}))

    def order(seed: int | None, name: str) -> list[int]:
        write_dataset(log, LeaveOneOutSplit(tie_shuffle_seed=seed), tmp_path / name, name=name)
        stored = pl.read_parquet(tmp_path / name / "interactions.parquet")
        return stored.filter(pl.col("user") == 0)["item"].to_list()

    shuffled = order(1, "a")
    assert order(None, "plain") == list(range(40))
    assert shuffled == order(1, "b")
    assert shuffled != order(2, "c")
    assert shuffled != list(range(40))
    assert [item // 10 for item in shuffled] == [item // 10 for item in range(40)]


def test_content_hash_follows_content_not_name(tmp_path: Path) -> None:
    base = write_dataset(small_log(), SPLIT, tmp_path / "a", name="a").content_hash

    assert write_dataset(small_log(), SPLIT, tmp_path / "b", name="b").content_hash == base
    others = [
        write_dataset(small_log(titles=("A", "B", "C", "E")), SPLIT, tmp_path / "c", name="a"),
        write_dataset(small_log(("v", "u")), SPLIT, tmp_path / "d", name="a"),
        write_dataset(small_log(), LeaveOneOutSplit(history=4), tmp_path / "e", name="a"),
        write_dataset(small_log(titles=("AB", "", "C", "D")), SPLIT, tmp_path / "f", name="a"),
    ]
    assert len({base, *(other.content_hash for other in others)}) == 5


def test_preparing_again_changes_the_name_alone_another_dataset_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "data"
    write_dataset(small_log(), SPLIT, out, name="small")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}

    again = write_dataset(small_log(), SPLIT, out, name="small")
    with pytest.raises(UserError, match="holds another dataset"):
        write_dataset(small_log(), LeaveOneOutSplit(), out, name="small")

    assert again.manifest.name == "small"
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    assert write_dataset(small_log(), SPLIT, out, name="other name").manifest.name == "other name"
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"dataset.json"}


def test_output_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()

    for name in ("notes", "file"):
        with pytest.raises(UserError, match=r"holds something else|a file stands"):
            write_dataset(small_log(), SPLIT, tmp_path / name, name="small")
    write_dataset(small_log(), SPLIT, tmp_path / "empty", name="small")

    assert (tmp_path / "notes" / "diary.txt").read_text() == "dear"
    assert (tmp_path / "file").read_text() == "x"


def test_nothing_is_left_when_the_split_is_impossible(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves no"):
        write_dataset(small_log(), PaperSplit(), tmp_path / "data", name="small")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="no space left"):
        write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")

    assert list(tmp_path.iterdir()) == []


def test_load_of_what_is_not_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    for name in (".", "file", "absent"):
        with pytest.raises(UserError, match="not a dataset directory"):
            Dataset.load(tmp_path / name)


@pytest.mark.parametrize("table", ["items", "users", "interactions", "examples"])
def test_load_of_a_cut_or_missing_table(tmp_path: Path, table: str) -> None:
    write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    file = tmp_path / "data" / f"{table}.parquet"
    whole = file.read_bytes()

    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{table}\.parquet: damaged or cut short"):
        Dataset.load(tmp_path / "data")
    pl.read_parquet(whole).head(1).write_parquet(file)
    with pytest.raises(UserError, match=rf"{table}\.parquet: has 1 rows, not"):
        Dataset.load(tmp_path / "data")
    file.unlink()
    with pytest.raises(UserError, match=rf"{table}\.parquet: missing"):
        Dataset.load(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"num_items": "many"}, "num_items"),
        ({"extra": 1}, "extra"),
    ],
)
def test_load_of_a_changed_manifest(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    file = tmp_path / "data" / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(UserError, match=message):
        Dataset.load(tmp_path / "data")


def test_verify_sees_a_changed_title_and_a_changed_example(tmp_path: Path) -> None:
    out = tmp_path / "data"
    write_dataset(small_log(), SPLIT, out, name="small")
    Dataset.load(out, verify=True)
    examples, items = pl.read_parquet(out / "examples.parquet"), pl.read_parquet(out / "items.parquet")

    examples.with_columns(target=pl.col("target") * 0).write_parquet(out / "examples.parquet")
    with pytest.raises(UserError, match="examples do not follow"):
        Dataset.load(out, verify=True)
    examples.write_parquet(out / "examples.parquet")
    items.with_columns(title=pl.lit("Z")).write_parquet(out / "items.parquet")
    with pytest.raises(UserError, match="content hash"):
        Dataset.load(out, verify=True)


def test_training_examples_by_hand(tmp_path: Path) -> None:
    dataset = write_dataset(small_log(), SPLIT, tmp_path / "data", name="small")
    assert dataset.training_examples().example_id.tolist() == dataset.examples("train").example_id.tolist()
    # the first validation target is of v, at 31: before it u has A B C (10, 20, 30), v has C C (11, 21)
    for train_on in ("positions", "before-cut"):
        examples = dataset.training_examples(train_on)
        assert examples.target.tolist() == [1, 2, 2]
        assert examples.history.tolist() == [[4, 4, 0], [4, 4, 2], [4, 0, 1]]
        assert examples.example_id.tolist() == dataset.examples("train").example_id.tolist()


def test_before_the_cut_users_without_a_training_example_count_too(tmp_path: Path) -> None:
    # a and b are short: one example each, their last event; c's is the only one for training
    rows = [("a", 0, 10), ("a", 1, 20), ("a", 2, 60), ("b", 1, 11), ("b", 3, 50), ("c", 0, 12), ("c", 2, 22)]
    interactions = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(4), "item_id": list("abcd"), "title": list("ABCD")})
    split = PaperSplit(history=3, ratios=(0.34, 0.33, 0.33))
    log = Log(interactions, items.cast({"index": pl.Int32}))
    dataset = write_dataset(log, split, tmp_path / "data", name="short")
    assert [dataset.examples(part).target.tolist() for part in ("train", "validation", "test")] == [[2], [3], [2]]
    positions, early = dataset.training_examples("positions"), dataset.training_examples("before-cut")
    assert (positions.target.tolist(), positions.history.tolist()) == ([2], [[4, 4, 0]])
    assert early.time.tolist() == [20, 22]
    assert early.history.tolist() == [[4, 4, 0], [4, 4, 0]]
    assert dataset.train_counts("before-cut").tolist() == [2, 2, 1, 0]
    assert dataset.train_counts().tolist() == [1, 0, 1, 0]
    assert dataset.first_times("before-cut").tolist() == [10, 11, 22, np.inf]
    assert dataset.first_times().tolist() == [12, np.inf, 22, np.inf]


def test_before_the_cut_no_user_gives_what_is_held_out_of_him(tmp_path: Path) -> None:
    """With leave-one-out a user of two events has a test target, which may be older than all validation targets."""
    rows = [("a", 0, 1), ("a", 1, 2), *(("b", item, 10 + item) for item in range(4))]
    interactions = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(4), "item_id": list("abcd"), "title": list("ABCD")})
    log = Log(interactions, items.cast({"index": pl.Int32}))
    dataset = write_dataset(log, LeaveOneOutSplit(), tmp_path / "data", name="short")
    assert dataset.examples("test").target.tolist() == [1, 3]
    assert dataset.training_examples("before-cut").target.tolist() == [1]
    assert dataset.training_examples("before-cut").time.tolist() == [11]
    assert dataset.train_counts("before-cut").tolist() == [2, 1, 0, 0]

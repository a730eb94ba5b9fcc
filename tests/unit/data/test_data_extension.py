"""A dataset goes on: what was there keeps its place, and what does not fit is refused."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Columns, Dataset, LeaveOneOutSplit, PaperSplit, extend, read_log, write_dataset
from dllm2rec.data.columns import TimeUnit
from dllm2rec.data.directory import Dropped, Duplicates

USERS, ITEMS = 30, 12


def rows(start: int, events: int, items: int, users: range = range(USERS)) -> pl.DataFrame:
    generator = numpy_generator(start, "extension")
    drawn = [
        {"user_id": user, "item_id": f"i{generator.integers(items)}", "timestamp": start + 100 * event + user}
        for user in users
        for event in range(events)
    ]
    return pl.DataFrame(drawn)


def catalogue(items: int) -> pl.DataFrame:
    return pl.DataFrame({"item_id": [f"i{n}" for n in range(items)], "title": [f"thing {n}" for n in range(items)]})


@pytest.fixture
def old(tmp_path: Path) -> Dataset:
    rows(1000, 8, ITEMS).write_csv(tmp_path / "log.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    return write_dataset(
        read_log(tmp_path / "log.csv", tmp_path / "items.csv"), PaperSplit(history=4), tmp_path / "old", name="shop"
    )


def test_what_was_there_keeps_its_place_and_everything_old_is_for_training(old: Dataset, tmp_path: Path) -> None:
    rows(5000, 5, ITEMS + 3, range(20, 40)).write_csv(tmp_path / "new.csv")
    catalogue(ITEMS + 3).reverse().write_csv(tmp_path / "more.csv")  # known ids in it are passed over

    new = extend(old, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "extended")

    assert new.items["item_id"][:ITEMS].to_list() == old.items["item_id"].to_list()
    assert set(new.items["item_id"][ITEMS:]) == {"i12", "i13", "i14"}
    assert new.items["index"].to_list() == list(range(ITEMS + 3))
    users = [pl.read_parquet(data.path / "users.parquet")["user_id"] for data in (old, new)]
    assert users[1][:USERS].to_list() == users[0].to_list()
    assert new.manifest.extends == (old.content_hash,)
    assert new.manifest.num_interactions == old.manifest.num_interactions + 100
    assert new.manifest.history == 4
    known = np.concatenate([old.examples(split).example_id for split in ("train", "validation", "test")])
    assert np.isin(known, new.examples("train").example_id).all()
    assert new.manifest.counts["test"] in (10, 11)  # cuts are rounded down
    assert 5 <= new.manifest.counts["validation"] <= 10  # a new user's first event is no example
    both = new.examples("train")
    before = old.examples("test")
    row = int(np.flatnonzero(both.example_id == before.example_id[0])[0])
    assert both.target[row] == before.target[0]
    np.testing.assert_array_equal(
        np.where(both.history[row] == both.num_items, ITEMS, both.history[row]), before.history[0]
    )
    Dataset.load(new.path, verify=True)


def test_it_goes_on_twice_and_the_same_again_is_left_alone(old: Dataset, tmp_path: Path) -> None:
    rows(5000, 5, ITEMS).write_csv(tmp_path / "new.csv")
    rows(9000, 5, ITEMS).write_csv(tmp_path / "newer.csv")

    once = extend(old, tmp_path / "new.csv", out=tmp_path / "once")
    twice = extend(once, tmp_path / "newer.csv", out=tmp_path / "twice")
    again = extend(once, tmp_path / "newer.csv", out=tmp_path / "twice")

    assert twice.manifest.extends == (old.content_hash, once.content_hash)
    assert again.content_hash == twice.content_hash


def test_ties_that_were_shuffled_stay_as_they_were(tmp_path: Path) -> None:
    frame = rows(1000, 8, ITEMS).with_columns(timestamp=pl.lit(7))
    frame.write_csv(tmp_path / "log.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv")
    old = write_dataset(log, LeaveOneOutSplit(history=4, tie_shuffle_seed=3), tmp_path / "old", name="ties")
    rows(5000, 5, ITEMS).write_csv(tmp_path / "new.csv")

    new = extend(old, tmp_path / "new.csv", out=tmp_path / "new")

    known = np.concatenate([old.examples(split).example_id for split in ("train", "validation", "test")])
    assert np.isin(known, new.examples("train").example_id).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": pl.lit(1500)}, r"row 1: time 1500 is older than the newest event known before \(1729\)"),
        ({"item_id": pl.lit("i99")}, "i99"),
        ({"timestamp": pl.lit(9000)}, r"150 new events: too few to hold a tenth out .* together with these$"),
    ],
)
def test_what_does_not_go_on_is_refused(change: dict[str, pl.Expr], words: str, old: Dataset, tmp_path: Path) -> None:
    rows(5000, 5, ITEMS).with_columns(**change).write_csv(tmp_path / "new.csv")

    with pytest.raises(UserError, match=words):
        extend(old, tmp_path / "new.csv", out=tmp_path / "extended")

    assert not (tmp_path / "extended").exists()


@pytest.mark.parametrize(
    ("first", "unit", "dates", "words"),
    [
        (1_711_929_600, "s", False, ("2024-04-01T00:00:00Z", "2024-04-01T00:12:09Z")),
        (1_711_929_600, "ms", False, ("2024-04-01T00:00:00Z", "2024-04-01T00:12:09Z")),
        (86_400, "s", True, ("1970-01-02T00:00:00Z", "1970-01-02T00:12:09Z")),
        (86_400, "s", False, ("86400", "87129")),
    ],
)
def test_times_that_are_too_old_are_told_as_dates(
    first: int, unit: TimeUnit, dates: bool, words: tuple[str, str], tmp_path: Path
) -> None:
    logged = rows(first, 8, ITEMS)
    if dates:
        logged = logged.with_columns(pl.from_epoch("timestamp").dt.strftime("%Y-%m-%d %H:%M:%S"))
    elif unit == "ms":
        logged = logged.with_columns(pl.col("timestamp") * 1000)
    logged.write_csv(tmp_path / "log.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    columns = Columns(time_unit=unit)
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv", columns=columns)
    known = write_dataset(log, PaperSplit(history=4), tmp_path / "old", name="shop")

    logged.with_columns(item_id=pl.lit("i0")).write_csv(tmp_path / "other.csv")

    with pytest.raises(UserError) as refused:
        extend(known, tmp_path / "other.csv", out=tmp_path / "new", columns=columns)

    assert re.search(
        rf"row \d+: time {words[0][:4]}\S+ is older than the newest event known before \({words[1]}\)",
        str(refused.value),
    )


def test_a_log_that_is_exported_whole_again_goes_on_as_its_new_events_do(old: Dataset, tmp_path: Path) -> None:
    new = rows(5000, 5, ITEMS)
    new.write_csv(tmp_path / "new.csv")
    pl.concat([new.reverse(), rows(1000, 8, ITEMS)]).write_csv(tmp_path / "whole.csv")

    alone = extend(old, tmp_path / "new.csv", out=tmp_path / "alone")
    whole = extend(old, tmp_path / "whole.csv", out=tmp_path / "whole")

    assert whole.manifest.num_interactions == alone.manifest.num_interactions
    assert set(whole.examples("test").example_id) == set(alone.examples("test").example_id)


def test_a_fraction_of_a_second_is_the_same_however_it_was_written(tmp_path: Path) -> None:
    times = pl.from_epoch(pl.col("timestamp") * 1000 + 7, time_unit="ms")
    log = rows(1_000_000, 8, ITEMS).with_columns(timestamp=pl.col("timestamp") * 1000 + 7)
    log.write_csv(tmp_path / "log.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    read = read_log(tmp_path / "log.csv", tmp_path / "items.csv", columns=Columns(time_unit="ms"))
    old = write_dataset(read, PaperSplit(history=4), tmp_path / "old", name="shop")
    new = pl.concat([rows(1_000_000, 8, ITEMS), rows(5_000_000, 5, ITEMS)]).with_columns(timestamp=times)
    new.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")).write_csv(tmp_path / "new.csv")

    longer = extend(old, tmp_path / "new.csv", out=tmp_path / "longer")

    assert longer.manifest.num_interactions == new.height


def test_what_is_told_of_a_log_later_counts_for_what_comes_next(old: Dataset, tmp_path: Path) -> None:
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv", columns=Columns(user="user_id"), incomplete="drop")

    again = write_dataset(log, PaperSplit(history=4), old.path, name="shop")

    assert old.manifest.dropped is None
    assert Dataset.load(old.path).manifest == again.manifest
    assert again.manifest.dropped == Dropped()
    assert again.manifest.columns == Columns(user="user_id")
    assert again.content_hash == old.content_hash


def test_columns_have_the_names_that_they_had_unless_others_are_given(tmp_path: Path) -> None:
    names = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    in_ms = pl.col("timestamp") * 1000
    rows(1000, 8, ITEMS).with_columns(in_ms).rename(names).write_csv(tmp_path / "log.csv")
    rows(5000, 5, ITEMS).with_columns(in_ms).rename(names | {"user_id": "visitor"}).write_csv(tmp_path / "new.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    columns = Columns(user="who", item="what", time="when", time_unit="ms")
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv", columns=columns)
    old = write_dataset(log, PaperSplit(history=4), tmp_path / "old", name="shop")

    with pytest.raises(UserError, match="no column 'who'"):
        extend(old, tmp_path / "new.csv", out=tmp_path / "new")
    new = extend(old, tmp_path / "new.csv", out=tmp_path / "new", columns=Columns(user="visitor"))

    assert new.examples("test").time.max() < 10_000
    assert new.manifest.columns == Columns(user="visitor", item="what", time="when", time_unit="ms")


def test_what_is_incomplete_is_dropped_as_it_was_before(tmp_path: Path) -> None:
    rows(1000, 8, ITEMS + 1).write_csv(tmp_path / "log.csv")
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv", incomplete="drop")
    old = write_dataset(log, PaperSplit(history=4), tmp_path / "old", name="gaps")
    new = rows(5000, 5, ITEMS + 2)
    new.write_csv(tmp_path / "new.csv")
    (tmp_path / "more.csv").write_text(f"item_id,title\ni{ITEMS},a thing\ni{ITEMS + 1},\n")

    longer = extend(old, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "longer")

    untitled = pl.concat([rows(1000, 8, ITEMS + 1), new])  # whole again, and what was dropped has a title by now
    untitled.write_csv(tmp_path / "whole.csv")
    whole = extend(old, tmp_path / "whole.csv", tmp_path / "more.csv", out=tmp_path / "whole")
    assert whole.content_hash == longer.content_hash
    assert whole.manifest.dropped == longer.manifest.dropped

    unknown = (new["item_id"] == f"i{ITEMS + 1}").sum()
    assert unknown > 0
    assert longer.manifest.dropped == Dropped(items=1, events=unknown)
    assert longer.num_items == ITEMS + 1
    assert longer.manifest.num_interactions == old.manifest.num_interactions + new.height - unknown


@pytest.mark.parametrize(
    ("line", "words"), [("i5,\ni50,\n", r"row 2: item_id 'i50' has no title"), ("i50,a\ni50,b\n", "duplicate")]
)
def test_wrong_new_items(line: str, words: str, old: Dataset, tmp_path: Path) -> None:
    rows(5000, 5, ITEMS).write_csv(tmp_path / "new.csv")
    (tmp_path / "more.csv").write_text("item_id,title\n" + line)

    with pytest.raises(UserError, match=words):
        extend(old, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "extended")


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
def test_rows_that_repeat_are_treated_as_before(duplicates: Duplicates, tmp_path: Path) -> None:
    log, new = rows(1000, 8, ITEMS), rows(5000, 5, ITEMS)
    for frame, name in ((pl.concat([log, log]), "log.csv"), (pl.concat([new, new]), "new.csv")):
        frame.write_csv(tmp_path / name)
    catalogue(ITEMS).write_csv(tmp_path / "items.csv")
    read = read_log(tmp_path / "log.csv", tmp_path / "items.csv", duplicates=duplicates)
    old = write_dataset(read, PaperSplit(history=4), tmp_path / "old", name="twice")
    longer = extend(old, tmp_path / "new.csv", out=tmp_path / "longer")
    added = longer.manifest.num_interactions - old.manifest.num_interactions
    assert added == new.height * (2 if duplicates == "keep" else 1)
    assert longer.manifest.duplicates == duplicates


def test_ids_may_grow_beyond_the_type_of_the_first_file(tmp_path: Path) -> None:
    narrow = {"user_id": pl.UInt8, "item_id": pl.UInt8}
    numbers(rows(1000, 8, ITEMS)).cast(narrow).write_parquet(tmp_path / "log.parquet")  # type: ignore[arg-type]
    numbers(catalogue(ITEMS)).cast({"item_id": pl.UInt8}).write_parquet(tmp_path / "items.parquet")
    log = read_log(tmp_path / "log.parquet", tmp_path / "items.parquet")
    old = write_dataset(log, PaperSplit(history=4), tmp_path / "old", name="narrow")
    numbers(rows(5000, 5, ITEMS, range(290, 320))).write_csv(tmp_path / "new.csv")
    (tmp_path / "more.csv").write_text("item_id,title\n300,a\n")
    longer = extend(old, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "longer")
    assert longer.items["item_id"][-1] == 300
    assert set(range(290, 320)) <= set(longer.user_ids)


def numbers(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64))


@pytest.fixture
def numbered(tmp_path: Path) -> Dataset:
    """Users and items are numbers."""
    numbers(rows(1000, 8, ITEMS)).write_parquet(tmp_path / "log.parquet")
    numbers(catalogue(ITEMS)).write_parquet(tmp_path / "items.parquet")
    log = read_log(tmp_path / "log.parquet", tmp_path / "items.parquet")
    return write_dataset(log, PaperSplit(history=4), tmp_path / "old", name="numbers")


def test_an_id_of_another_type_than_those_known_is_refused(numbered: Dataset, tmp_path: Path) -> None:
    numbers(rows(5000, 5, ITEMS)).with_columns(user_id=pl.lit("kim")).write_csv(tmp_path / "new.csv")

    with pytest.raises(UserError, match="row 1: user_id 'kim' is no number"):
        extend(numbered, tmp_path / "new.csv", out=tmp_path / "extended")


def test_a_number_is_the_same_item_however_it_is_written_and_a_known_one_needs_no_title(
    numbered: Dataset, tmp_path: Path
) -> None:
    written = numbers(rows(5000, 5, ITEMS)).with_columns(pl.format("0{}", "item_id").alias("item_id"))
    written.write_csv(tmp_path / "new.csv")
    (tmp_path / "more.csv").write_text("item_id,title\n005,\n12,a\n013,b\n")
    new = extend(numbered, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "extended")
    assert new.items["item_id"].to_list() == [*range(ITEMS), 12, 13]
    assert new.titles == [*numbered.titles, "a", "b"]

    (tmp_path / "more.csv").write_text("item_id,title\n12,a\n012,b\n")
    with pytest.raises(UserError, match="row 2: item_id 12 is a duplicate"):
        extend(numbered, tmp_path / "new.csv", tmp_path / "more.csv", out=tmp_path / "other")


def test_events_that_are_known_are_passed_over(old: Dataset, tmp_path: Path) -> None:
    known = pl.read_csv(tmp_path / "log.csv")
    again = known.filter(pl.col("timestamp") == known["timestamp"].max())
    new = rows(5000, 5, ITEMS)
    pl.concat([again, new]).write_csv(tmp_path / "new.csv")
    new.write_csv(tmp_path / "newer.csv")
    first = extend(old, tmp_path / "new.csv", out=tmp_path / "first")
    assert first.manifest.num_interactions == old.manifest.num_interactions + new.height
    assert first.content_hash == extend(old, tmp_path / "newer.csv", out=tmp_path / "second").content_hash
    again.write_csv(tmp_path / "again.csv")
    with pytest.raises(UserError, match=r"again\.csv: all of its events are known"):
        extend(old, tmp_path / "again.csv", out=tmp_path / "third")

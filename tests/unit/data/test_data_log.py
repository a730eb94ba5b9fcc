from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Columns, read_log
from dllm2rec.data.directory import Dropped
from dllm2rec.data.values import ids, like

WriteLog = Callable[..., tuple[Path, Path]]


def fails(paths: tuple[Path, Path], match: str, columns: Columns = Columns()) -> None:  # noqa: B008
    with pytest.raises(UserError, match=match) as error:
        read_log(*paths, columns=columns)
    assert "\n" not in str(error.value)


def test_users_in_order_of_appearance_events_in_stable_time_order(write_log: WriteLog) -> None:
    log = read_log(*write_log("b,3,30\na,1,10\nb,1,30\nb,2,5\na,2,10\n"))

    assert log.interactions["user"].to_list() == ["b", "b", "b", "a", "a"]
    assert log.interactions["item"].to_list() == [1, 2, 0, 0, 1]
    assert log.interactions["time"].to_list() == [5, 30, 30, 10, 10]
    assert log.interactions.schema == {"user": pl.String, "item": pl.Int32, "time": pl.Int64}


def test_catalogue_keeps_file_order_other_text_and_cleans_titles(write_log: WriteLog) -> None:
    log = read_log(
        *write_log(
            items="3,  Tom &amp; Jerry&nbsp;&#39;s \t  show ,x\n1,A <b>,\n2,Tom & Jerry 's show,y\n",
            items_header="item_id,title,genre\n",
        )
    )

    assert log.items["index"].to_list() == [0, 1, 2]
    assert log.items["item_id"].to_list() == ["3", "1", "2"]
    assert log.items["title"].to_list() == ["Tom & Jerry 's show", "A <b>", "Tom & Jerry 's show"]
    assert log.items["genre"].to_list() == ["x", None, "y"]
    assert log.interactions["item"].to_list() == [1, 2, 2, 0]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Women, The (1939)", "The Women (1939)"),
        ("Postino, Il (1994)", "Il Postino (1994)"),
        ("American President, The", "The American President"),
        ("Good, the Bad, A", "A Good, the Bad"),
        ("Lions, Tigers, The Bears", "Lions, Tigers, The Bears"),
        ("Hello, Theo", "Hello, Theo"),
        (", The", ", The"),
    ],
)
def test_an_article_at_the_end_of_a_title_comes_to_the_front(written: str, read: str, write_log: WriteLog) -> None:
    log = read_log(*write_log(items=f'1,"{written}"\n2,B\n3,C\n'))

    assert log.items["title"][0] == read


def test_ids_of_any_type_are_kept_and_compared_as_text(tmp_path: Path) -> None:
    pl.DataFrame({"userId": [9, 9, 4], "movieId": [1.0, 2.0, 2.0], "time": [1, 2, 3]}).write_parquet(
        tmp_path / "log.parquet"
    )
    pl.DataFrame({"movieId": ["2", "1"], "name": ["Two", "One"]}).write_ndjson(tmp_path / "items.jsonl")

    log = read_log(tmp_path / "log.parquet", tmp_path / "items.jsonl")

    assert log.interactions["user"].to_list() == [9, 9, 4]
    assert log.interactions["item"].to_list() == [1, 0, 0]
    assert log.items["item_id"].to_list() == ["2", "1"]


def test_well_known_names_and_mapping(write_log: WriteLog) -> None:
    known = read_log(*write_log(header="reviewerID,parent_asin,Unix Review Time\n", items_header="asin,Name\n"))
    paths = write_log(header="who,what,when\n", items_header="key,label\n")
    mapped = read_log(*paths, columns=Columns(user="who", item="what", time="when", item_id="key", title="label"))

    assert known.interactions.equals(mapped.interactions)
    assert known.items.equals(mapped.items)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("uuu,item_id,timestamp\n", r"log\.csv: no column for the user among 'uuu', .*--user-column"),
        ("user_id,iii,timestamp\n", r"no column for the item among .*--item-column"),
        ("user_id,item_id,ttt\n", r"no column for the time among .*--time-column"),
    ],
)
def test_missing_column(write_log: WriteLog, header: str, message: str) -> None:
    fails(write_log(header=header), message)


def test_times_that_only_sometimes_read_as_dates_are_times(write_log: WriteLog) -> None:
    log = read_log(*write_log("a,1,20200131\na,2,20209999\nb,2,20200202\n"))
    assert log.interactions["time"].to_list() == [20200131, 20209999, 20200202]


def test_a_separator_that_is_none_is_told(write_log: WriteLog) -> None:
    fails(
        write_log(items="1|A\n2|B\n", items_header="item_id|title\n"),
        r"one column is 'item_id\|title'; separate the columns",
    )


def test_missing_column_of_items_and_wrong_mapping(write_log: WriteLog) -> None:
    fails(write_log(items_header="item_id,ttt\n"), r"items\.csv: no column for the title .*--title-column")
    fails(write_log(items_header="iii,title\n"), r"no column for the item id .*--item-id-column")
    fails(write_log(), r"user 'item_id', item 'item_id' .* must be three columns", Columns(user="item_id"))
    fails(
        write_log(),
        r"no column 'user' \(did you mean 'user_id'\?\); name the right one with --user-column ",
        Columns(user="user"),
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1,10\nb,2,soon\n", r"row 2: timestamp 'soon' is not a number"),
        ("a,1,10\nb,2,\n", r"row 2: timestamp None is missing"),
        ("a,1,10\nb,2\n", r"row 2: timestamp None is missing"),
        ("a,1,10\nb,2,NaN\n", r"row 2: timestamp 'NaN' is not a finite time"),
        ("a,1,10\nb,2,inf\n", r"row 2: timestamp 'inf' is not a finite time"),
        ("a,1,-1\nb,2,5\nb,1,-3\n", r"row 1: timestamp '-1' is a negative time \(and 1 rows more\)"),
        ("a,1,10\nb,2,4102444800\nb,1,5\n", r"row 2: timestamp '4102444800' lies after the year 2100$"),
        ("a,1,1500000000000\nb,2,1500000000001\n", r"row 1: .*look like ms: say --time-unit ms"),
        (
            "a,1,20200131\nb,2,20200201\n",
            r"row 1: timestamp '20200131' looks like a date without separators; .*YYYY-MM",
        ),
        ("a,1,20200131235959\nb,2,20200201000000\n", r"row 1: timestamp '2020\d+' looks like a date without"),
        ("a,1,2020-01-01\nb,2,2020-13-01\n", r"row 2: timestamp '2020-13-01' is not a date"),
        ("a,1,10\n,2,20\n", r"row 2: user_id None is missing"),
        ("a,1,10\n  ,2,20\n", r"row 2: user_id '  ' is missing"),
        ("a,1,10\nb,,20\n", r"row 2: item_id None is missing"),
        ("a,1,10\nb,7,20\nb,8,20\nb,7,21\n", r"row 2: item_id '7' is not in .*items\.csv \(3 rows with 2 unknown"),
        ("a,x1,10\nb,x2,20\n", r"row 1: item_id 'x1' is not in .*nor is any other .*such as '1'"),
        ("a,1.0,10\nb,2.0,20\n", r"row 1: item_id '1.0' is not in .*nor is any other .* written as floats"),
        ("a,1,10\na,2,20\na,3,30\n", r"log\.csv: holds one user only"),
        ("a,1,10\nb,1,20\na,1,30\n", r"log\.csv: all interactions are with one item"),
        ("a,1,10\nb,2,20\nc,3,30\n", r"log\.csv: every user has one event only"),
    ],
)
def test_bad_interactions(write_log: WriteLog, rows: str, message: str) -> None:
    fails(write_log(rows), message)


def test_one_late_time_speaks_for_no_other_unit(write_log: WriteLog) -> None:
    paths = write_log("a,1,1500000000000\na,2,1500000000001\nb,1,9999999999999\n")
    fails(paths, r"row 3: timestamp '9999999999999' lies after the year 2100$", Columns(time_unit="ms"))
    fails(paths, r"row 1: .* look like ms: say --time-unit ms")


@pytest.mark.parametrize(("first", "dtype"), [(5, pl.Int64), (2**63, pl.UInt64), (-1, pl.String)])
def test_whole_numbers_of_any_size_are_ids(first: int, dtype: pl.DataType) -> None:
    given = pl.Series("id", [first, 2**63 + 1 if first != 5 else 7], dtype=pl.Int128)
    found = ids(given, Path("x.jsonl"))
    assert found.dtype == dtype
    assert found.cast(pl.String).to_list() == [str(one) for one in given]
    with pytest.raises(UserError, match=r"row 2: id None is missing"):
        ids(pl.Series("id", [first, None], dtype=pl.Int128), Path("x.jsonl"))


def test_an_id_beyond_the_type_of_the_known_ones_is_refused() -> None:
    known = pl.Series("id", [1, 2])
    with pytest.raises(UserError, match=rf"row 2: id {2**63 + 1} is no number as the known ids are \(Int64\)"):
        like(known, pl.Series("id", [1, 2**63 + 1], dtype=pl.UInt64), Path("x.jsonl"))


def test_what_is_incomplete_is_dropped_on_demand(write_log: WriteLog) -> None:
    paths = write_log("a,1,10\nb,2,20\nb,7,21\nb,3,22\na,3,30\n", items="1,One\n2,&nbsp;\n3,Three\n")

    log = read_log(*paths, incomplete="drop")

    assert log.items["item_id"].to_list() == ["1", "3"]
    assert log.items["index"].to_list() == [0, 1]
    assert log.interactions.rows() == [("a", 0, 10), ("a", 1, 30), ("b", 1, 22)]
    assert log.dropped == Dropped(items=1, events=2)


def test_items_that_all_lack_a_title_are_rather_in_another_column(write_log: WriteLog) -> None:
    with pytest.raises(UserError, match=r"items\.csv: 1 of 3 items have a title; name another --title-column"):
        read_log(*write_log(items="1,\n2,Two\n3,\n"), incomplete="drop")


def test_the_same_row_of_the_items_again_is_no_other_item(write_log: WriteLog) -> None:
    log = read_log(*write_log(items="1,One\n2,Two\n1,One\n3,Three\n2,Two\n"))

    assert log.items["item_id"].to_list() == ["1", "2", "3"]
    assert log.items["index"].to_list() == [0, 1, 2]


def test_a_log_of_other_items_is_no_incomplete_one(write_log: WriteLog) -> None:
    with pytest.raises(UserError, match=r"row 1: item_id 'x1' is not in .*nor is any other"):
        read_log(*write_log("a,x1,10\nb,x2,20\n"), incomplete="drop")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("1,One\n2,\n3,Three\n", r"items\.csv: row 2: item_id '2' has no title \(column 'title'\)"),
        ("1,One\n2,&nbsp; \n3,Three\n", r"row 2: item_id '2' has no title"),
        ("1,One\n1,One\n2,Two\n1,Three\n3,Three\n", r"items\.csv: row 4: item_id '1' is a duplicate item id"),
        ("1,One\n,Two\n", r"items\.csv: row 2: item_id None is missing"),
        ("1,One\n", r"items\.csv: holds one item only"),
        ("1,One\n1,One\n", r"items\.csv: holds one item only"),
    ],
)
def test_bad_items(write_log: WriteLog, items: str, message: str) -> None:
    fails(write_log(items=items), message)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([1.0, float("nan"), 3.0]), r"row 2: timestamp nan is not a finite time"),
        (pl.Series([1, None, 3]), r"row 2: timestamp None is missing"),
        (pl.Series([date(2020, 1, 1), date(2999, 12, 31), date(2020, 1, 2)]), r"row 2: .* after the year 2100$"),
        (pl.Series([date(2999, 12, 31)] * 3), r"row 1: .* after the year 2100 \(and 2 rows more\)$"),
        (pl.Series([2**63 + 1, 1, 2], dtype=pl.UInt64), r"row 1: .* is missing or too large"),
        (pl.Series([True, False, True]), r"row 1: timestamp True is not a time"),
        (pl.Series([[1], [2], [3]]), r"row 1: timestamp .* is not a time"),
        (pl.Series([None, None, None]), r"row 1: timestamp None is not a time"),
    ],
)
def test_bad_typed_times(tmp_path: Path, write_log: WriteLog, column: pl.Series, message: str) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 3], "timestamp": column}).write_parquet(path)

    fails((path, write_log()[1]), message)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([1.5, 2.0, 3.0]), r"row 1: item 1\.5 is not an id"),
        (pl.Series([1.0, 2.0**53, 3.0]), r"row 2: item 9007199254740992\.0 is too large to be exact"),
        (pl.Series([1e19, 2.0, 3.0]), r"row 1: item .* is too large to be exact"),
        (pl.Series([1.0, float("nan"), 3.0]), r"row 2: item nan is not an id"),
        (pl.Series([True, False, True]), r"row 1: item True is not an id"),
        (pl.Series([1, None, 3]), r"row 2: item None is missing"),
    ],
)
def test_bad_typed_ids(tmp_path: Path, write_log: WriteLog, column: pl.Series, message: str) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["a", "a", "b"], "item": column, "timestamp": [1, 2, 3]}).write_parquet(path)

    fails((path, write_log()[1]), message)


def test_titles_that_are_not_text(tmp_path: Path, write_log: WriteLog) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [1, 2, 3], "title": [["a"], ["b"], ["c"]]}).write_parquet(path)

    fails((write_log()[0], path), r"row 1: title .* is not text")


def test_times_as_dates_and_in_other_units(tmp_path: Path, write_log: WriteLog) -> None:
    noon = int(datetime(2020, 1, 1, 12, tzinfo=UTC).timestamp())
    midnight = int(datetime(2020, 1, 2, tzinfo=UTC).timestamp())

    text = read_log(*write_log("a,1,2020-01-01 12:00:00\na,2,2020-01-02 00:00:00\nb,1,2020-01-01 12:00:00\n"))
    zoned = read_log(*write_log("a,1,2020-01-01T13:00:00+01:00\na,2,2020-01-02T00:00:00Z\nb,1,2020-01-01T12:00:00Z\n"))
    milli = read_log(*write_log(f"a,1,{noon}000\na,2,{midnight}000\nb,1,{noon}000\n"), columns=Columns(time_unit="ms"))
    rows = ("a,1,2020-01-01 12:00", "a,2,2020-01-02 00:00", "b,1,2020-01-01 12:00")
    named = read_log(*write_log("".join(f"{row}:00.000 UTC\n" for row in rows)))
    for log in (text, zoned, named, milli):
        assert log.interactions["time"].to_list() == [noon, midnight, noon]
        assert log.interactions["time"].dtype == pl.Int64

    path = tmp_path / "log.parquet"
    pl.DataFrame(
        {"user": [1, 1, 2], "item": [1, 2, 1], "date": [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 2)]}
    ).write_parquet(path)
    assert read_log(path, write_log()[1]).interactions["time"].to_list() == [midnight - 86400, midnight, midnight]


def test_fractions_of_seconds_stay(write_log: WriteLog) -> None:
    log = read_log(*write_log("a,1,10.5\na,2,10.25\nb,2,3\n"))

    assert log.interactions["time"].to_list() == [10.25, 10.5, 3.0]
    assert log.interactions["item"].to_list() == [1, 0, 1]


def test_exact_repeats_are_kept_unless_dropped(write_log: WriteLog) -> None:
    paths = write_log("a,1,10\na,1,10\na,1,11\nb,2,5\n")

    assert read_log(*paths).interactions.height == 4
    assert read_log(*paths, duplicates="drop").interactions.rows() == [("a", 0, 10), ("a", 0, 11), ("b", 1, 5)]

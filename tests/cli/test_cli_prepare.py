"""`dllm2rec prepare`: what good and bad logs get."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli_helpers import ITEMS, USERS, call, log_rows, refused, write_log

from dllm2rec.core.files import exclusive
from dllm2rec.data import Dataset
from dllm2rec.workflow.preparing import remarks_on

Rows = list[tuple[Any, Any, Any]]


def test_a_good_log_becomes_a_dataset_and_json_says_what_is_in_it(tmp_path: Path) -> None:
    outcome = call("prepare", *write_log(tmp_path, list(log_rows())), "--out", tmp_path / "out", "--json")
    assert outcome.code == 0
    assert outcome.json["num_users"] == USERS
    assert outcome.json["num_items"] == ITEMS
    assert outcome.json["name"] == "log"
    assert sum(outcome.json["counts"].values()) == USERS * 4
    assert (tmp_path / "out" / "dataset.json").is_file()


def test_people_get_words(tmp_path: Path) -> None:
    outcome = call("prepare", *write_log(tmp_path, list(log_rows())), "--out", tmp_path / "out")
    assert outcome.code == 0
    assert f"{USERS} users, {ITEMS} items" in outcome.out


def test_what_is_incomplete_is_left_out_on_demand_and_told(tmp_path: Path) -> None:
    rows = [*log_rows(), ("u0", "nowhere", 5)]
    files = write_log(tmp_path, rows)
    refused(call("prepare", *files, "--out", tmp_path / "out"), "--set incomplete=drop")
    outcome = call("prepare", *files, "--set", "incomplete=drop", "--out", tmp_path / "out", "--json")
    assert outcome.json["num_interactions"] == len(rows) - 1
    assert "left out as incomplete: 0 items without a title, 1 event (" in str(outcome.json["remarks"])


def test_items_that_nobody_chose_are_counted(tmp_path: Path) -> None:
    rows = [row for row in log_rows() if row[1] != 0]
    assert (
        f"{ITEMS} items (1 of them in no event)"
        in call("prepare", *write_log(tmp_path, rows), "--out", tmp_path / "out").out
    )


def test_targets_that_no_student_has_seen_are_counted(tmp_path: Path) -> None:
    rows = list(log_rows())
    last = max(time for _, _, time in rows)
    late = [(f"u{user}", ITEMS + user % 2, last + 1 + user) for user in range(20)]
    items = [(item, f"thing {item}") for item in range(ITEMS + 2)]
    split = ("--split", "global-time", "--out", tmp_path / "out", "--json")
    remarks = call("prepare", *write_log(tmp_path, [*rows, *late], items), *split).json["remarks"]
    assert any("% of test targets are items that no event before the split date has" in one for one in remarks)
    plain = call("prepare", *write_log(tmp_path / "plain", rows), *split[:3], tmp_path / "plain" / "out", "--json")
    assert not any("targets" in one for one in plain.json["remarks"])


def test_a_user_who_dominates_is_named(tmp_path: Path) -> None:
    rows = list(log_rows())
    last = max(time for _, _, time in rows)
    files = write_log(tmp_path, [*rows, *(("BOT", step % ITEMS, last + step) for step in range(300))])
    split = ("--split", "global-time", "--out", tmp_path / "out")
    (remark,) = call("prepare", *files, *split, "--json").json["remarks"]
    assert remark.startswith("user 'BOT' gives 20% of train, 100% of validation, 100% of test examples")
    assert remark in " ".join(call("prepare", *files, *split).out.split())
    plain = call("prepare", *write_log(tmp_path / "plain", rows), "--out", tmp_path / "plain" / "out", "--json")
    assert not any("user '" in one for one in plain.json["remarks"])


def test_events_in_the_future_are_told(tmp_path: Path) -> None:
    rows = [*log_rows(), ("u0", 3, 2_145_916_800)]
    prepared = call("prepare", *write_log(tmp_path, rows), "--out", tmp_path / "out")
    assert prepared.code == 0, prepared.err
    dataset = Dataset.load(tmp_path / "out")
    told = "1 event lies in the future (the last on 2038-01-01): an update takes nothing older than the last event"
    assert any(one.startswith(told) for one in remarks_on(dataset, now=datetime(2030, 1, 1, tzinfo=UTC)))
    for now in (datetime(2037, 12, 31, 12, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)):  # a clock may be fast
        assert not any("future" in one for one in remarks_on(dataset, now=now))
    far = write_log(tmp_path / "far", [*rows, *(("u0", 4, 4_070_908_800 + step) for step in range(2))])
    remarks = call("prepare", *far, "--out", tmp_path / "far" / "out", "--json").json["remarks"]
    assert any("lie in the future (the last on 2099-01-01)" in one for one in remarks)


def test_any_setting_and_any_split(tmp_path: Path) -> None:
    files = write_log(tmp_path, list(log_rows()))
    outcome = call(
        "prepare",
        *files,
        "--split",
        "leave-one-out",
        "--set",
        "split.sample_train=7",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert outcome.json["split"]["kind"] == "leave-one-out"
    assert outcome.json["counts"] == {"train": 7, "validation": USERS, "test": USERS}


def test_the_package_dataset(tmp_path: Path) -> None:
    outcome = call("prepare", "--source", "ml-100k", "--out", tmp_path / "out", "--json")
    assert outcome.json["num_users"] == 943
    assert outcome.json["name"] == "ml-100k"


def changed(row: int, **fields: Any) -> Callable[[Rows], Rows]:
    """Return a function that changes fields of one row (from 1)."""

    def change(rows: Rows) -> Rows:
        user, item, time = rows[row - 1]
        new = {"user": user, "item": item, "time": time} | fields
        return [*rows[: row - 1], (new["user"], new["item"], new["time"]), *rows[row:]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda rows: [], ["log.csv", "no row"], id="header only"),
        pytest.param(changed(3, time="soon"), ["log.csv", "row 3", "time", "soon"], id="wrong type"),
        pytest.param(changed(4, time="nan"), ["row 4", "time"], id="nan"),
        pytest.param(changed(5, time="-3"), ["row 5", "negative"], id="negative time"),
        pytest.param(changed(6, time="9999999999999"), ["row 6", "2100"], id="far future"),
        pytest.param(changed(7, item="999"), ["row 7", "999", "items.csv"], id="unknown item"),
        pytest.param(lambda rows: [("u", item, time) for _, item, time in rows], ["one user"], id="one user"),
        pytest.param(lambda rows: [(user, 3, time) for user, _, time in rows], ["one item"], id="one item"),
        pytest.param(lambda rows: [(f"u{i}", i % ITEMS, i) for i in range(20)], ["one event"], id="users of one event"),
    ],
)
def test_bad_interactions(change: Callable[[Rows], Rows], words: list[str], tmp_path: Path) -> None:
    files = write_log(tmp_path, change(list(log_rows())))
    refused(call("prepare", *files, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_all_events_at_one_time_leave_an_empty_part_or_a_dataset_but_no_defect(tmp_path: Path) -> None:
    files = write_log(tmp_path, [(user, item, 5) for user, item, _ in log_rows()])
    refused(call("prepare", *files, "--split", "global-time", "--out", tmp_path / "out"), "global-time", "time")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("items", "words"),
    [
        pytest.param([(0, "A"), (1, ""), (2, "C")], ["items.csv", "row 2", "no title"], id="item without title"),
        pytest.param([(0, "A"), (1, "B"), (1, "C")], ["items.csv", "row 3", "duplicate"], id="duplicate item id"),
    ],
)
def test_bad_items(items: list[tuple[int, str]], words: list[str], tmp_path: Path) -> None:
    files = write_log(tmp_path, list(log_rows()), items)
    refused(call("prepare", *files, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("log.csv", b"", ["log.csv", "empty"], id="empty"),
        pytest.param("log.csv", b"user,thing\nu,1\n", ["log.csv", "item", "--item-column"], id="missing column"),
        pytest.param("log.parquet", b"this is not a Parquet file" * 9, ["log.parquet", "Parquet"], id="garbage"),
        pytest.param("log.csv", b'user,"item,time\n', ["log.csv", "header"], id="open quote"),
        pytest.param("log.xls", b"x", ["log.xls", "is unknown"], id="unknown format"),
    ],
)
def test_bad_files(name: str, content: bytes, words: list[str], tmp_path: Path) -> None:
    _, _, *items = write_log(tmp_path, list(log_rows()))
    (tmp_path / name).write_bytes(content)
    refused(call("prepare", "--interactions", tmp_path / name, *items, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_brackets_in_a_path_are_no_pattern(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "logs[1]"
    folder.mkdir()
    _, _, *items = write_log(tmp_path, list(log_rows()))
    table = pl.DataFrame(list(log_rows()), schema=["user", "item", "time"], orient="row")
    file = folder / f"log[2].{suffix}"
    {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[suffix](file)
    outcome = call("prepare", "--interactions", file, *items, "--out", folder / "out", "--json")
    assert outcome.code == 0, outcome.err


def test_a_truncated_parquet(tmp_path: Path) -> None:
    _, _, *items = write_log(tmp_path, list(log_rows()))
    file = tmp_path / "log.parquet"
    pl.DataFrame(log_rows(), schema=["user", "item", "time"], orient="row").write_parquet(file)
    file.write_bytes(file.read_bytes()[:-40])
    refused(call("prepare", "--interactions", file, *items, "--out", tmp_path / "out"), "log.parquet", "cut")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    _, _, *items = write_log(tmp_path, list(log_rows()))
    refused(
        call("prepare", "--interactions", tmp_path / "no.csv", *items, "--out", tmp_path / "o"), "no.csv", "no such"
    )
    refused(call("prepare", "--interactions", tmp_path, *items, "--out", tmp_path / "o"))


def test_two_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    with exclusive(tmp_path / "out"):
        files = write_log(tmp_path, list(log_rows()))
        refused(call("prepare", *files, "--out", tmp_path / "out"), "out: another dllm2rec is writing there; wait")


def test_an_output_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    files = write_log(tmp_path / "in", list(log_rows()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    refused(call("prepare", *files, "--out", tmp_path / "out"), "something else")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    refused(call("prepare", *files, "--out", tmp_path / "out" / "thesis.txt"), "a file stands")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
def test_a_disk_that_refuses(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_log(tmp_path, list(log_rows()))

    def refuse(self: Path, data: bytes) -> int:
        raise OSError(number, "refused", str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    refused(call("prepare", *files, "--out", tmp_path / "out"), words)
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv", "items.csv"}


def test_the_output_may_be_a_link_but_not_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_log(tmp_path, list(log_rows()))
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert call("prepare", *files, "--out", tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "dataset.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused(call("prepare", *files, "--out", "."), "you stand in it")
    assert not list((tmp_path / "here").iterdir())


def test_unknown_settings_and_values_out_of_range(tmp_path: Path) -> None:
    files = write_log(tmp_path, list(log_rows()))
    out = tmp_path / "out"
    refused(
        call("prepare", *files, "--out", out, "--set", "split.histroy=3"),
        "split.histroy",
        "did you mean 'split.history'",
    )
    refused(call("prepare", *files, "--out", out, "--set", "split.history=0"), "split.history", "greater than 0")
    refused(call("prepare", *files, "--out", out, "--set", "nonsense"), "name=value")
    refused(call("prepare", "--source", "ml-1m", "--out", out), "source", "ml-100k")
    refused(call("prepare", "--out", out), "interactions and items")
    assert not out.exists()


def test_a_verb_or_option_that_does_not_exist(tmp_path: Path) -> None:
    assert call("prepaer").code == 2
    assert call("prepare", "--outt", tmp_path).code == 2
    assert call("prepare").code == 2


def test_a_unit_that_makes_it_1970_is_asked_about(tmp_path: Path) -> None:
    files = write_log(tmp_path, [(user, item, 1_600_000_000 + time) for user, item, time in log_rows()])
    assert "of 2020-09-25 to 2020-09-25" in " ".join(call("prepare", *files, "--out", tmp_path / "right").out.split())
    wrong = call("prepare", *files, "--time-unit", "us", "--out", tmp_path / "wrong")
    assert "1970-01-01 (is that right? else see --time-unit)" in " ".join(wrong.out.split())

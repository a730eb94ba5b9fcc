"""`dllm2rec export` and `recommend`, and what wrong requests get."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cli_helpers import call, refused

from dllm2rec.bundling import batch
from dllm2rec.core.files import exclusive, hash_file
from dllm2rec.serving.recommender import Recommendation, Recommender


@pytest.fixture(scope="module")
def bundle(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    outcome = call("export", runs["distilled"], "--index", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["different"] == 0
    assert outcome.json["checked"] > 10
    return out


def items(bundle: Path) -> list[tuple[str, str]]:
    return [(item, title) for item, title in json.loads((bundle / "items.json").read_text())]


def test_ids_and_titles_mean_the_same(bundle: Path) -> None:
    (first, title), (second, _) = items(bundle)[:2]
    by_id = call("recommend", bundle, "--history", f"{first}, {second}", "--k", 3, "--json").json
    by_title = call("recommend", bundle, "--history", f"{title}; {second}", "--k", 3, "--json").json
    assert by_id == by_title
    assert by_id["history"] == [first, second]
    assert len(by_id["items"]) == 3
    without = call("recommend", bundle, "--history", first, "--k", 999, "--exclude-seen", "--json").json
    assert len(without["items"]) == len(items(bundle)) - 1
    shown = call("recommend", bundle, "--history", first, "--k", 2)
    assert by_title["titles"]
    assert "score" in shown.out


def retitled(bundle: Path, out: Path, *titles: str) -> Path:
    """Copy a bundle and give its first items other titles."""
    shutil.copytree(bundle, out)
    known = items(bundle)
    changed = [(item, title) for (item, _), title in zip(known, titles, strict=False)] + known[len(titles) :]
    (out / "items.json").write_text(json.dumps(changed))
    manifest = json.loads((out / "bundle.json").read_text())
    manifest["files"]["items.json"] = hash_file(out / "items.json")
    (out / "bundle.json").write_text(json.dumps(manifest))
    return out


@pytest.mark.parametrize(
    ("history", "rows"),
    [
        ("Monsters, Inc. (2001)", [0]),
        ("{3}, Monsters, Inc. (2001) ,{4},", [3, 0, 4]),
        ("Good, Bad, Ugly, Good, Bad, Good", [1, 2, 3]),  # the longest first
        ("Good; Good, Bad, Ugly; Monsters", [3, 1, 0]),
        ("Ugly, monsters", [1, 0]),  # parts of titles, as ever
        ("Hot; Cold, Good", [4]),
        ("good, BAD,  ugly, monsters, inc. (2001)", [1, 0]),  # in other cases and with other spaces
        ("Good, usual suspects, The (1995), Good", [3, 5, 3]),  # as the log had it
    ],
)
def test_a_title_may_hold_commas(history: str, rows: list[int], bundle: Path, tmp_path: Path) -> None:
    titles = ("Monsters, Inc. (2001)", "Good, Bad, Ugly", "Good, Bad", "Good", "Hot; Cold, Good")
    titles = (*titles, "The Usual Suspects (1995)")
    changed = retitled(bundle, tmp_path / "b", *titles)
    ids = [item for item, _ in items(changed)]
    answer = call("recommend", changed, "--history", history.format(*ids), "--json")
    assert answer.code == 0, answer.err
    assert answer.json["history"] == [ids[row] for row in rows]


def test_an_id_goes_before_a_title(bundle: Path, tmp_path: Path) -> None:
    second = items(bundle)[1][0]
    changed = retitled(bundle, tmp_path / "b", second)
    assert call("recommend", changed, "--history", second, "--json").json["history"] == [second]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--history", "no such toy"], ["no such toy", "no such id or title"]),
        (["--history", "e"], ["titles hold that", "by its id"]),
    ],
)
def test_titles_that_mean_nothing_or_much(options: list[str], words: list[str], bundle: Path) -> None:
    refused(call("recommend", bundle, *options), *words)


def test_wrong_requests(bundle: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    refused(call("recommend", bundle, "--history", items(bundle)[0][0], "--k", 0), "k must be at least 1")
    refused(call("recommend", tmp_path, "--history", "x"), "not a bundle")
    refused(
        call("recommend", bundle, "--interactions", bundle / "items.json", "--out", tmp_path / "recs.csv"),
        "recs.parquet",
    )
    refused(call("export", tmp_path, "--out", tmp_path / "b"), "not a run, dataset or knowledge directory")
    refused(call("export", runs["plain"], "--out", bundle), "exists already")
    assert not (tmp_path / "b").exists()


def test_knowledge_leaves_as_the_files_of_the_original_code(taught: Path, dataset: Path, tmp_path: Path) -> None:
    refused(call("export", taught, "--out", tmp_path / "files"), "--dataset")
    told = call("export", taught, "--dataset", dataset, "--out", tmp_path / "files", "--json").json
    assert told["files"] == sorted(file.name for file in (tmp_path / "files").iterdir())
    again = call("teach", dataset, "--import", tmp_path / "files", "--out", tmp_path / "again", "--json").json
    assert again["labels"]["train"] > 100
    assert again["vector_size"] == 32


def test_counting_serves_as_a_student_does(dataset: Path, tmp_path: Path) -> None:
    told = call("export", dataset, "--out", tmp_path / "counting", "--json").json
    assert (told["name"], told["different"], told["text_weight"]) == ("item-kNN, demand", 0, 0.0)
    assert 0 < told["test"]["NDCG@20"] < told["test"]["HR@20"] <= 1
    (first, _), *_ = items(tmp_path / "counting")
    assert len(call("recommend", tmp_path / "counting", "--history", first, "--k", 3, "--json").json["items"]) == 3
    shown = call("export", dataset, "--out", tmp_path / "again", "--precision", "float16", "--examples", 0)
    assert [len(json.loads((tmp_path / name / "examples.json").read_text())) for name in ("counting", "again")] == [
        20,
        0,
    ]
    assert "item-kNN, demand: HR@20 ." in shown.out
    refused(
        call("export", dataset, "--out", tmp_path / "b", "--index"),
        "is a dataset, which gives no vectors to index; leave --index out",
    )
    refused(call("export", dataset, "--out", tmp_path / "b", "--dataset", dataset), "leave --dataset out")
    assert not (tmp_path / "b").exists()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log.csv"
    file.write_text("user,item,time\nb,3,20\na,1,10\nb,2,10\nc,no,5\na,nor,4\nd,4,1\n")
    return file


def test_all_users_of_a_log_get_what_each_would_get(bundle: Path, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    told = call("recommend", bundle, "--interactions", log, "--out", out, "--k", 4, "--exclude-seen", "--json").json
    assert told == {"out": str(out), "users": 4, "fallbacks": 1, "unknown_events": 2}
    table = pl.read_parquet(out)
    assert table["user"].to_list() == ["b", "a", "c", "d"]
    assert not (tmp_path / "recs.parquet.parts").exists()
    histories = {"b": "2, 3", "a": "1", "d": "4"}
    for row in table.iter_rows(named=True):
        one = call(
            "recommend", bundle, "--interactions", log, "--user", row["user"], "--k", 4, "--exclude-seen", "--json"
        )
        assert row["items"] == one.json["items"]
        assert row["fallback"] == one.json["fallback"]
        if row["user"] in histories:
            typed = call("recommend", bundle, "--history", histories[row["user"]], "--k", 4, "--exclude-seen", "--json")
            assert row["items"] == typed.json["items"]


def test_a_batch_goes_on_where_it_was(bundle: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "USERS_AT_ONCE", 1)
    asked: list[int] = []
    answer = Recommender.recommend

    def dies_at_the_third(self: Recommender, *arguments: Any, **options: Any) -> list[Recommendation]:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(self, *arguments, **options)

    monkeypatch.setattr(Recommender, "recommend", dies_at_the_third)
    out = tmp_path / "recs.parquet"
    command = ["recommend", bundle, "--interactions", log, "--out", out]
    assert call(*command, "--k", 2).code == 130
    assert not out.exists()
    assert len(list((tmp_path / "recs.parquet.parts").glob("part-*"))) == 2
    for other in (["--k", 3], ["--k", 2, "--approximate"], ["--k", 2, "--time-column", "time"]):
        refused(call(*command, *other), "parts of another request")
    assert call(*command, "--k", 2).code == 0
    assert len(asked) == 5  # two before, the one that died, and the two that were missing
    whole = tmp_path / "whole.parquet"
    assert call("recommend", bundle, "--interactions", log, "--out", whole, "--k", 2).code == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(whole))
    refused(call(*command, "--k", 2), "exists already")


def test_a_batch_that_is_written_is_not_refused_for_the_parts_that_are_left(
    bundle: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out, parts = tmp_path / "recs.parquet", tmp_path / "recs.parquet.parts"
    command = ["recommend", bundle, "--interactions", log, "--out", out, "--k", 2]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda old, new: dies() if old == parts else os.replace(old, new) or new)
        assert call(*command).code == 130
    written = out.read_bytes()
    assert parts.exists()
    for other in (b"mine", pl.DataFrame({"mine": [1]})):
        out.write_bytes(other) if isinstance(other, bytes) else other.write_parquet(out)
        refused(call(*command), "exists already")
    out.write_bytes(written)
    assert call(*command).code == 0
    assert out.read_bytes() == written
    assert [one.name for one in tmp_path.glob("*recs*")] == ["recs.parquet"]
    refused(call(*command), "exists already")


def test_an_empty_key_is_no_key_and_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", " "):
        monkeypatch.setenv("DLLM2REC_API_KEY", empty)
        refused(call("serve", bundle), "DLLM2REC_API_KEY is set, but empty", "unset it")


def test_brackets_are_no_markup_and_no_pattern(bundle: Path, log: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle, tmp_path / "bundle")
    titles = [(item, f"{title} [pc] [/b]") for item, title in items(bundle)]
    (other / "items.json").write_text(json.dumps(titles))
    manifest = json.loads((other / "bundle.json").read_text())
    manifest["files"]["items.json"] = hash_file(other / "items.json")
    (other / "bundle.json").write_text(json.dumps(manifest))
    shown = call("recommend", other, "--history", "1", "--k", 2)
    assert shown.code == 0, shown.err
    assert shown.out.count("[pc] [/b]") == 2
    out = tmp_path / "out[1]" / "recs.parquet"
    done = call("recommend", other, "--interactions", log, "--out", out)
    assert done.code == 0, done.err
    assert out.is_file()


def renamed(bundle: Path, out: Path, *ids: object) -> Path:
    """Copy a bundle and give its first items other ids."""
    retitled(bundle, out)
    changed = [(item, title) for item, (_, title) in zip(ids, items(out), strict=False)] + items(out)[len(ids) :]
    (out / "items.json").write_text(json.dumps(changed))
    manifest = json.loads((out / "bundle.json").read_text())
    manifest["files"]["items.json"] = hash_file(out / "items.json")
    (out / "bundle.json").write_text(json.dumps(manifest))
    return out


def test_an_id_is_shown_whole_and_as_it_is(bundle: Path, tmp_path: Path) -> None:
    long = [f"afbd67f9-6196-99cf-e198-{n:04}-of-a-shop-with-very-long-names:book:" for n in range(len(items(bundle)))]
    shown = call("recommend", renamed(bundle, tmp_path / "b", *long), "--history", long[0], "--k", 1)
    assert shown.code == 0, shown.err
    assert "".join(line.split("│")[2].strip() for line in shown.out.splitlines() if "│" in line) in long


def test_ids_that_are_hashes_of_64_bits(bundle: Path, tmp_path: Path) -> None:
    ids = [2**63 + n for n in range(len(items(bundle)))]
    other = renamed(bundle, tmp_path / "b", *ids)
    pl.DataFrame({"user": ["a"] * 3, "item": ids[:3], "time": [1, 2, 3]}).write_parquet(tmp_path / "log.parquet")
    asked = ["recommend", other, "--interactions", tmp_path / "log.parquet"]
    one = call(*asked, "--user", "a", "--k", 3, "--json").json
    assert (one["history"], one["fallback"]) == (ids[:3], False)
    assert call(*asked, "--out", tmp_path / "all.parquet", "--k", 3).code == 0
    assert pl.read_parquet(tmp_path / "all.parquet")["items"].to_list() == [one["items"]]


def test_two_do_not_write_one_batch(bundle: Path, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    with exclusive(out):
        refused(call("recommend", bundle, "--interactions", log, "--out", out), str(out), "another dllm2rec")
    assert not (tmp_path / "recs.parquet.parts").exists()
    assert call("recommend", bundle, "--interactions", log, "--out", out).code == 0


def test_the_columns_of_a_log_are_named(bundle: Path, log: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.csv", tmp_path / "recs.parquet"
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    other.write_text("who,what,when\n" + "".join(f"{who},{what},{when}000000000000\n" for who, what, when in rows))
    named = ["recommend", bundle, "--interactions", other]
    refused(call(*named, "--out", out), "name it with --user-column")
    named += ["--user-column", "who", "--item-column", "what", "--time-column", "when"]
    refused(call(*named, "--out", out), "say --time-unit us")
    named += ["--time-unit", "us"]
    outcome = call(*named, "--out", out)
    assert outcome.code == 0, outcome.err
    assert call("recommend", bundle, "--interactions", log, "--out", tmp_path / "same.parquet").code == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(tmp_path / "same.parquet"))
    one = call(*named, "--user", "b", "--json").json
    assert one == call("recommend", bundle, "--interactions", log, "--user", "b", "--json").json


def test_only_some_items(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("3\n7\n\n", encoding="utf-8-sig")  # as some editors save it
    found = call("recommend", bundle, "--history", "1", "--filter", tmp_path / "some.txt", "--json").json
    assert sorted(found["items"]) == ["3", "7"]
    (tmp_path / "newer.txt").write_text("3\n\nno such\n")
    newer = call("recommend", bundle, "--history", "1", "--filter", tmp_path / "newer.txt", "--json")
    assert (newer.json["items"], newer.json["unknown_candidates"]) == (["3"], ["no such"])
    assert "1 ids that are not in the catalogue are left out ('no such')" in newer.err
    (tmp_path / "wrong.txt").write_text("no such\n")
    refused(call("recommend", bundle, "--history", "1", "--filter", tmp_path / "wrong.txt"), "names no item of")
    refused(call("recommend", bundle, "--history", "1", "--filter", tmp_path / "none.txt"), "none.txt")


def test_wrong_ways_to_ask(bundle: Path, log: Path, tmp_path: Path) -> None:
    for options in (
        [],
        ["--history", "1", "--interactions", log],
        ["--interactions", log],
        ["--interactions", log, "--user", "a", "--out", tmp_path / "x.parquet"],
        ["--history", "1", "--user", "a"],
    ):
        refused(call("recommend", bundle, *options), "--history, or --interactions")
    refused(call("recommend", bundle, "--interactions", log, "--user", "z"), "no user 'z'")
    refused(call("recommend", bundle, "--interactions", log, "--out", tmp_path / "x.parquet", "--k", 0), "at least 1")


def test_new_items_by_the_verb(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("item_id,title\nnew,A new thing\n")
    refused(
        call("add-items", bundle, "--items", tmp_path / "new.csv", "--out", tmp_path / "b"),
        "other vectors than",
        "--vectors",
    )


def test_the_columns_of_new_items_are_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("code,label\nnew,A new thing\n")
    np.save(tmp_path / "new.npy", np.ones((1, 32), np.float32))
    command = ["add-items", bundle, "--items", tmp_path / "new.csv", "--vectors", tmp_path / "new.npy"]
    command += ["--out", tmp_path / "b", "--json"]
    refused(call(*command), "name it with --item-id-column")
    refused(call(*command, "--model", "minilm"), "--model minilm and --vectors", "give one of them")
    refused(call(*command, "--item-id-column", "code"), "name it with --title-column")
    outcome = call(*command, "--item-id-column", "code", "--title-column", "label")
    assert outcome.code == 0, outcome.err
    assert items(tmp_path / "b")[-1] == ("new", "A new thing")

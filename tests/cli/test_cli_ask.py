"""Questions go out, answers of whatever language model come back as knowledge."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cli_helpers import SMALL_TRAINING, call, refused

from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge
from dllm2rec.knowledge.align import align
from dllm2rec.teachers.encoder import Encoder


@pytest.fixture(scope="module")
def asked(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("asked") / "questions.jsonl"
    told = call("ask", dataset, "--limit", "train=60", "--limit", "validation=8", "--limit", "test=9", "--out", out)
    assert told.code == 0, told.err
    assert "60 train, 8 validation, 9 test" in told.out
    return out


@pytest.fixture(scope="module")
def questions(asked: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in asked.read_text(encoding="utf-8").splitlines()]


def answered(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_question_tells_the_history_and_not_what_came_next(dataset: Path, questions: list[dict[str, Any]]) -> None:
    opened = Dataset.load(dataset)
    ids = opened.items["item_id"].to_list()
    parts = {split: opened.examples(split) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert [row["split"] for row in questions] == ["train"] * 60 + ["validation"] * 8 + ["test"] * 9
    for row in questions:
        assert row.keys() == {"example_id", "split", "history", "titles", "prompt"}
        part = parts[row["split"]]
        (place,) = np.flatnonzero(part.example_id == int(row["example_id"]))
        items = [item for item in part.history[place].tolist() if item != opened.num_items]
        assert row["history"] == [ids[item] for item in items]
        assert row["titles"] == [opened.titles[item] for item in items]
        assert row["prompt"].splitlines()[1:-1] == [f"- {title}" for title in row["titles"]]


def test_questions_are_not_written_over(dataset: Path, asked: Path, tmp_path: Path) -> None:
    before = asked.read_bytes()
    refused(call("ask", dataset, "--out", asked), str(asked), "exists already")
    assert asked.read_bytes() == before
    refused(call("ask", dataset, "--limit", "test=999999", "--out", tmp_path / "q.jsonl"), "999999")
    refused(call("ask", dataset, "--budget", "200%", "--out", tmp_path / "q.jsonl"), "--budget 200%")
    refused(call("ask", dataset, "--limit", 0, "--out", tmp_path / "q.jsonl"), "no question at all")
    refused(call("ask", dataset, "--vectors", dataset, "--out", tmp_path / "q.jsonl"), "--vectors", "disagreement")
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_grounded_and_teaches(
    dataset: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    opened = Dataset.load(dataset)
    rows = [{"example_id": row["example_id"], "text": f" {row['titles'][-1]}\n"} for row in questions]
    rows[3]["text"], rows[4]["text"] = "", None  # type: ignore[assignment]
    out = tmp_path / "k"
    told = call("teach", dataset, "--import", answered(tmp_path, rows), "--llm", "elsewhere", "--out", out, "--json")
    assert told.code == 0, told.err
    assert told.json["labels"] == {"train": 58, "validation": 8, "test": 9}
    known = Knowledge.load(out)
    assert known.manifest.name == "imported (elsewhere)"
    test = opened.examples("test")
    places = align(known, opened, test)
    for row in np.flatnonzero(places >= 0):
        place = places[row]
        newest = opened.titles[test.history[row, -1]]
        assert known.labels.generated_text[place] == newest
        assert opened.titles[known.labels.ranked_items[place, 0]] == newest
        assert known.labels.distances[place, 0] == pytest.approx(0, abs=1e-5)
        listed = known.labels.ranked_items[place].tolist()
        if test.target[row] in listed:
            expected = known.labels.distances[place, listed.index(test.target[row])]
            assert known.labels.target_distance[place] == pytest.approx(expected, abs=1e-5)
    assert "imported" in call("doctor", out, "--dataset", dataset).out
    run = tmp_path / "run"
    assert call("train", dataset, *SMALL_TRAINING, "--knowledge", out, "--out", run).code == 0
    assert json.loads((run / "result.json").read_text())["fit"]["labelled"] == 58


def test_lists_of_ids_are_rankings_of_one_depth(dataset: Path, questions: list[dict[str, Any]], tmp_path: Path) -> None:
    opened = Dataset.load(dataset)
    ids = opened.items["item_id"].to_list()
    rows = [{"example_id": row["example_id"], "items": ids[5 : 10 + place % 3]} for place, row in enumerate(questions)]
    file = tmp_path / "answers.parquet"
    pl.DataFrame(rows).write_parquet(file)
    out = tmp_path / "k"
    assert call("teach", dataset, "--import", file, "--out", out).code == 0
    known = Knowledge.load(out)
    assert known.labels.ranked_items.tolist() == [[5, 6, 7, 8, 9]] * len(rows)
    assert known.labels.distances.tolist() == [[1, 2, 3, 4, 5]] * len(rows)
    train = opened.examples("train")
    places = align(known, opened, train)
    for row in np.flatnonzero(places >= 0):
        target = int(train.target[row])
        assert known.labels.target_distance[places[row]] == (target - 4 if 5 <= target < 10 else 6)
    before = known.content_hash
    again = call("teach", dataset, "--import", file, "--out", out)
    assert again.code == 0, again.err
    assert "5 items each" in again.out
    assert Knowledge.load(out).content_hash == before


def test_a_short_list_is_left_out_and_cuts_no_other(
    dataset: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    ids = Dataset.load(dataset).items["item_id"].to_list()
    rows = [{"example_id": row["example_id"], "items": ids[5:10]} for row in questions]
    rows[3]["items"] = ids[:1]
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    pl.DataFrame(rows[:10]).write_parquet(first)
    rows[12]["items"] = ids[:9]
    pl.DataFrame(rows).write_parquet(second)
    told = call("teach", dataset, "--import", first, "--out", tmp_path / "k")
    assert told.code == 0, told.err
    assert "1 of 10 answers list fewer than 5 items and are left out" in told.err
    assert "5 items each" in told.out
    assert call("teach", dataset, "--import", second, "--out", tmp_path / "k").code == 0  # as deep as what is there
    known = Knowledge.load(tmp_path / "k").labels
    assert len(known) == len(rows) - 1
    assert known.ranked_items.shape[1] == 5
    pl.DataFrame([{"example_id": row["example_id"], "text": "Title 3"} for row in rows]).write_parquet(first)
    assert call("teach", dataset, "--import", first, "--out", tmp_path / "texts").code == 0
    mixed = call("teach", dataset, "--import", second, "--out", tmp_path / "texts")
    refused(mixed, "holds other knowledge", "answers")
    assert "30 items" not in mixed.err  # how deep the others are is nothing to these


def test_answers_that_say_nothing_are_told(dataset: Path, questions: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = [{"example_id": row["example_id"], "text": "I'm sorry, I can't help."} for row in questions[:8]]
    rows[2]["text"], rows[5]["text"] = "", "The Matrix"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = call("teach", dataset, "--import", tmp_path / "a.jsonl", "--out", tmp_path / "k")
    assert told.code == 0, told.err
    assert "1 of 8 answers are empty and are left out" in told.err
    assert "6 of 7 answers are \"I'm sorry, I can't help.\"; is that a title?" in told.err
    refused(call("ask", dataset, "--out", tmp_path / "q.csv"), "name the file .jsonl")


def test_an_import_of_lists_that_was_interrupted_goes_on(
    dataset: Path, questions: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = Dataset.load(dataset).items["item_id"].to_list()
    file = tmp_path / "answers.parquet"
    pl.DataFrame([{"example_id": row["example_id"], "items": ids[5:10]} for row in questions]).write_parquet(file)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    teach = ("teach", dataset, "--import", file, "--out", tmp_path / "k")
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", interrupted)
        assert call(*teach).code == 130
    done = call(*teach)
    assert done.code == 0, done.err
    assert len(Knowledge.load(tmp_path / "k").labels) == len(questions)


def test_more_answers_add_to_what_is_there(
    dataset: Path, questions: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"example_id": row["example_id"], "text": row["titles"][-1]} for row in questions]
    teach = ["teach", dataset, "--out", tmp_path / "k", "--import"]
    assert call(*teach, answered(tmp_path, rows[:20])).code == 0
    encoded: list[int] = []
    encode = Encoder.encode

    def counted(self: Encoder, texts: Sequence[str], **how: Any) -> np.ndarray:
        encoded.append(len(texts))
        return encode(self, texts, **how)

    monkeypatch.setattr(Encoder, "encode", counted)
    assert call(*teach, answered(tmp_path, rows)).code == 0
    assert encoded == [len(rows) - 20]  # neither titles nor answers that were there
    assert len(Knowledge.load(tmp_path / "k").labels) == len(rows)
    rows[5]["text"] = "something else"
    refused(call(*teach, answered(tmp_path, rows)), rows[5]["example_id"], "answered otherwise", "another --out")
    assert len(Knowledge.load(tmp_path / "k").labels) == len(rows)


def test_the_same_answer_once_more_counts_once(dataset: Path, questions: list[dict[str, Any]], tmp_path: Path) -> None:
    item = Dataset.load(dataset).items["item_id"].to_list()
    texts = [{"example_id": row["example_id"], "text": row["titles"][-1]} for row in questions[:8]]
    retried = [{"example_id": texts[0]["example_id"], "text": ""}, *texts, {**texts[3], "text": texts[3]["text"] + " "}]
    lists = [{"example_id": row["example_id"], "items": item[5:10]} for row in questions[:8]]
    for name, rows in (("texts", [*retried, texts[7]]), ("lists", [*lists, lists[3], lists[7]])):
        told = call("teach", dataset, "--import", answered(tmp_path, rows), "--out", tmp_path / name)
        assert told.code == 0, told.err
        assert "answers.jsonl: 2 of 10 answers repeat an earlier one and are left out" in told.err
        assert len(Knowledge.load(tmp_path / name).labels) == 8
    other = [*lists, {**lists[3], "items": item[6:11]}]
    refused(call("teach", dataset, "--import", answered(tmp_path, other), "--out", tmp_path / "other"), "row 9")


def test_answers_that_fit_nothing_are_refused(dataset: Path, questions: list[dict[str, Any]], tmp_path: Path) -> None:
    first, second = (row["example_id"] for row in questions[:2])
    item = Dataset.load(dataset).items["item_id"][0]
    out = ["--out", tmp_path / "k"]
    for rows, *words in (
        ([{"example_id": first}], "either text", "or items"),
        ([{"example_id": first, "text": "a", "items": [item]}], "either text", "or items"),
        ([{"text": "a"}], "must have example_id"),
        ([{"example_id": "7", "text": "a"}], "row 1: example_id '7' is no example of"),
        ([{"example_id": "x", "text": "a"}], "row 1: example_id 'x' is no example of"),
        ([{"example_id": first, "text": text} for text in "aab"], "row 3", "answered a second time, and otherwise"),
        ([{"example_id": first, "text": " "}], "every text is empty"),
        ([{"example_id": first, "items": [item]}, {"example_id": second, "items": []}], "row 2", "lists nothing"),
        ([{"example_id": first, "items": ["no such"]}], "row 1", "lists what is no item"),
        ([{"example_id": first, "items": [item, None]}], "row 1", "lists what is no item"),
        ([{"example_id": first, "items": [item, item]}], "row 1", "lists an item twice"),
        ([{"example_id": first, "text": ["a", "b"]}], "row 1", "is no text"),
        ([{"example_id": first, "text": True}], "row 1", "is no text"),
        ([{"example_id": first, "text": "a"}, {"example_id": second, "text": 42}], "line 2: text 42 is no text"),
        ([{"example_id": first, "text": {"t": 1}}, {"example_id": second, "text": "a"}], 'line 1: text {"t": 1} is no'),
        ([{"example_id": [first], "text": "a"}], "row 1", "is no id"),
        ([{"example_id": first, "items": "a"}], "must be lists of ids"),
    ):
        refused(call("teach", dataset, "--import", answered(tmp_path, rows), *out), "answers.jsonl", *words)
    asked = ["teach", dataset, "--import", answered(tmp_path, [{"example_id": first, "text": "a"}]), *out]
    refused(call(*asked, "--teacher", "bigrec"), "--teacher", "leave it out")
    refused(call(*asked, "--model", "no-such-encoder"), "no encoder 'no-such-encoder'")
    assert not (tmp_path / "k").exists()

"""`dllm2rec export` and `recommend`, and what wrong requests get."""

import json
from pathlib import Path

import pytest
from cli_helpers import call, refused


@pytest.fixture(scope="module")
def bundle(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    outcome = call("export", runs["distilled"], "--out", out, "--json")
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
    refused(call("export", tmp_path, "--out", tmp_path / "b"), "not a run directory")
    refused(call("export", runs["plain"], "--out", bundle), "exists already")
    assert not (tmp_path / "b").exists()


def test_knowledge_leaves_as_the_files_of_the_original_code(taught: Path, dataset: Path, tmp_path: Path) -> None:
    refused(call("export", taught, "--out", tmp_path / "files"), "--dataset")
    told = call("export", taught, "--dataset", dataset, "--out", tmp_path / "files", "--json").json
    assert told["files"] == sorted(file.name for file in (tmp_path / "files").iterdir())
    again = call("teach", dataset, "--import", tmp_path / "files", "--out", tmp_path / "again", "--json").json
    assert again["labels"]["train"] > 100
    assert again["vector_size"] == 32

"""Several teachers at once, from the command line and from a configuration."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL_TRAINING, Outcome, call, log_rows, refused, write_log


@pytest.fixture(scope="module")
def sources(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two teachers that cost nothing."""
    folder = tmp_path_factory.mktemp("sources")
    for teacher, limit in (("knn", "validation=30"), ("popularity", "train=200")):
        outcome = call("teach", dataset, "--teacher", teacher, "--limit", limit, "--out", folder / teacher)
        assert outcome.code == 0, outcome.err
    return folder / "knn", folder / "popularity"


@pytest.fixture(scope="module")
def merged(dataset: Path, sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "knowledge"
    assert merge(dataset, *sources, out=out).code == 0
    return out


def merge(dataset: Path, *sources: Path, out: Path, options: tuple[str, ...] = ()) -> Outcome:
    named = [word for source in sources for word in ("--from", source)]
    return call("teach", dataset, "--teacher", "merged", *named, *options, "--out", out)


def test_merged_knowledge_is_examined_and_teaches(
    dataset: Path, sources: tuple[Path, Path], merged: Path, tmp_path: Path
) -> None:
    again = merge(dataset, *sources, out=merged, options=("--json",)).json
    settings = again["settings"]
    counts = json.loads((dataset / "dataset.json").read_text())["counts"]
    assert again["labels"]["test"] == counts["test"]
    assert again["labels"]["validation"] == settings["validation_examples"] == counts["validation"]
    assert (again["teacher"], again["model"], again["depth"]) == ("merged", "knn + popularity", 30)
    assert sum(source["weight"] for source in settings["sources"]) == pytest.approx(1)
    for source, path in zip(settings["sources"], sources, strict=True):
        assert source["teacher"] == path.name
        assert source["temperature"] > 0
    for said in (merge(dataset, *sources, out=merged).out, call("doctor", merged, "--dataset", dataset).out):
        words = " ".join(said.split())
        weights = [f"{source['weight']:.4f}".removeprefix("0") for source in settings["sources"]]
        assert f"Merged: knn with weight {weights[0]}, at temperature" in words
        assert f"Merged: popularity with weight {weights[1]}, at temperature" in words
        assert "(expected calibration error)" in words
    outcome = call(
        *("train", dataset, "--knowledge", merged, "--method", "soft-labels", "--set", "method.embedding=false"),
        *("--set", "method.temperature=1", *SMALL_TRAINING, "--out", tmp_path / "run"),
    )
    assert outcome.code == 0, outcome.err


def test_what_can_not_be_merged(
    dataset: Path, taught: Path, sources: tuple[Path, Path], merged: Path, tmp_path: Path
) -> None:
    knn, popularity = sources
    out = tmp_path / "k"
    refused(merge(dataset, out=out), "sources", "two or more, not 0", "--from KNOWLEDGE")
    refused(merge(dataset, knn, out=out), "two or more, not 1")
    copy = shutil.copytree(knn, tmp_path / "copy")
    refused(merge(dataset, knn, copy, out=out), str(copy), "the same knowledge as", str(knn))
    refused(merge(dataset, knn, tmp_path / "no", out=out), f"{tmp_path / 'no'}: no such directory")
    refused(merge(dataset, knn, popularity, out=out, options=("--set", "vectors=all")), "vectors", "'concatenated'")
    files = write_log(tmp_path / "in", list(reversed(log_rows())))
    assert call("prepare", *files, "--out", tmp_path / "other").code == 0
    refused(merge(tmp_path / "other", knn, popularity, out=out), str(knn), "another dataset")
    for teacher, words in (("encoder", "lists no items"), ("popularity", "labels no validation example")):
        path = tmp_path / teacher
        options = [] if teacher == "encoder" else ["--split", "train"]
        assert call("teach", dataset, "--teacher", teacher, *options, "--out", path).code == 0
        refused(merge(dataset, knn, path, out=out), str(path), words)
    assert not out.exists()
    refused(merge(dataset, knn, taught, out=merged), f"{merged}: holds other knowledge", "settings.sources")
    refused(call("teach", dataset, "--teacher", "knn", "--from", popularity, "--out", out), "--from", "for merged")


def test_distances_that_are_not_finite(dataset: Path, sources: tuple[Path, Path], tmp_path: Path) -> None:
    from dllm2rec.knowledge import Knowledge
    from dllm2rec.knowledge.shards import write_shard

    knn, popularity = sources
    bad = shutil.copytree(knn, tmp_path / "bad")
    labels = Knowledge.load(knn).labels
    labels.distances[3, 2] = np.inf
    for file in bad.glob("labels-*"):
        file.unlink()
    write_shard(bad, 0, labels)
    refused(merge(dataset, popularity, bad, out=tmp_path / "k"), str(bad), "a distance that is not finite")
    assert not (tmp_path / "k").exists()


def test_what_is_new_is_taught_by_each_source(dataset: Path, merged: Path, tmp_path: Path) -> None:
    manifest = json.loads((dataset / "dataset.json").read_text())
    longer = shutil.copytree(dataset, tmp_path / "longer")
    (longer / "dataset.json").write_text(json.dumps({**manifest, "extends": [manifest["content_hash"]]}))
    outcome = call("teach", longer, "--only-new", merged, "--out", tmp_path / "k")
    refused(outcome, str(merged), "--only-new", "each of its sources", "merge again")


def test_an_update_needs_merged_knowledge_of_the_longer_log(dataset: Path, merged: Path, tmp_path: Path) -> None:
    taught = ["--knowledge", merged, "--method", "soft-labels", "--set", "method.embedding=false", *SMALL_TRAINING]
    assert call("train", dataset, *taught, "--out", tmp_path / "run").code == 0
    later = [(user, item, time + 10**8) for user, item, time in log_rows()]
    _, log, _, _ = write_log(tmp_path, later)
    command = ["update", tmp_path / "run", "--interactions", log, "--out", tmp_path / "run-2", "--force"]
    refused(call(*command), str(merged), f"teach {tmp_path / 'run-2' / 'dataset'} anew", "--knowledge")
    longer = tmp_path / "run-2" / "dataset"
    assert call("teach", longer, "--teacher", "knn", "--out", tmp_path / "k").code == 0
    outcome = call(*command, "--knowledge", tmp_path / "k")
    assert outcome.code == 0, outcome.err


CONFIG = """
name = "small"
protocol = "paper"
[dataset]
interactions = "log.csv"
items = "items.csv"
[dataset.split]
kind = "paper"
history = 5
[teacher]
kind = "merged"
depth = 20
[[teacher.sources]]
kind = "reference"
[[teacher.sources]]
kind = "reference"
reference = { kind = "popularity" }
[students.SASRec.student]
kind = "sasrec"
dim = 16
[students.SASRec.loss]
kind = "softmax"
[methods.taught]
kind = "soft-labels"
embedding = false
temperature = 1
[training]
epochs = 2
batch_size = 64
"""


def test_an_experiment_teaches_its_sources_first_and_once(tmp_path: Path) -> None:
    write_log(tmp_path / "in", list(log_rows()))
    file, out = tmp_path / "in" / "small.toml", tmp_path / "out"
    file.write_text(CONFIG)
    first = call("run", file, "--out", out, "--json")
    assert first.code == 0, first.err
    names = [stage["name"] for stage in first.json["stages"]]
    assert names[:4] == ["prepare", "teach source 1", "teach source 2", "teach"]
    assert f"[{len(names)}/{len(names)}] compare and report" in first.err
    assert "Merged: knn with weight" in (out / "results.md").read_text()
    second = call("run", file, "--out", out, "--json")
    assert all(stage["cached"] for stage in second.json["stages"])
    changed = call("run", file, "--out", out, "--set", "teacher.sources.1.depth=25", "--json")
    fresh = [stage["name"] for stage in changed.json["stages"] if not stage["cached"]]
    assert fresh[:2] == ["teach source 2", "teach"]
    refused(
        call("run", file, "--out", out, "--set", "teacher.sources.0.dept=3"),
        "teacher.sources.0.dept",
        "did you mean 'teacher.sources.0.depth'",
    )
    refused(call("run", file, "--out", out, "--set", "teacher.sources.0.kind=encoder"), "sources.0.kind", "'encoder'")
    refused(call("run", file, "--out", out, "--set", "teacher.sources=[]"), "teacher.sources", "two or more, not 0")
    same = call("run", file, "--out", out, "--set", "teacher.sources.1.reference.kind=knn")
    refused(same, "the same knowledge as")


def test_an_experiment_learns_from_knowledge_that_is_there(tmp_path: Path) -> None:
    files = write_log(tmp_path / "in", list(log_rows()))
    assert call("prepare", *files, "--set", "split.history=5", "--out", tmp_path / "in" / "dataset").code == 0
    taught = ["--teacher", "knn", "--set", "depth=20", "--out", tmp_path / "in" / "known"]
    assert call("teach", tmp_path / "in" / "dataset", *taught).code == 0
    file, out = tmp_path / "in" / "small.toml", tmp_path / "out"
    before, after = CONFIG.index("[teacher]"), CONFIG.index("[students")
    file.write_text(f'{CONFIG[:before]}[teacher]\nkind = "knowledge"\npath = "known"\n{CONFIG[after:]}')
    done = call("run", file, "--out", out, "--json")
    assert done.code == 0, done.err
    assert [stage["cached"] for stage in done.json["stages"]] == [False, True, False, False, False]
    assert not list(out.glob("knowledge-*"))
    refused(call("run", file, "--out", tmp_path / "o", "--set", "dataset.split.history=4"), "known", "another dataset")


def test_a_method_may_learn_from_one_source_alone(tmp_path: Path) -> None:
    from dllm2rec.comparison.evidence import gather
    from dllm2rec.workflow.runs import Run

    write_log(tmp_path / "in", list(log_rows()))
    file, out = tmp_path / "in" / "small.toml", tmp_path / "out"
    counted = '[methods.counted]\nkind = "soft-labels"\nembedding = false\n[learns_from]\ncounted = 2\n[training]'
    file.write_text(CONFIG.replace("[training]", counted))
    for jobs in ("1", "2"):
        first = call("run", file, "--out", out, "--jobs", jobs, "--json")
        assert first.code == 0, first.err
        runs = [json.loads(found.read_text()) for found in sorted(out.glob("runs/*/config.json"))]
        taught = {run["method"]: run["knowledge"]["name"] for run in runs}
        assert taught == {"counted": "popularity", "taught": "merged (knn + popularity)"}
        evidence = gather([Run.load(file.parent) for file in sorted(out.glob("runs/*/config.json"))])
        for group in evidence.groups:
            sources = [one.name for one in evidence.teachers if group.learned_from(one.knowledge)]
            assert sources == [taught[group.runs[0].config.method]]
        page = (out / "results.md").read_text()
        for name in ("popularity", "merged (knn + popularity)"):
            assert f"## The teacher {name}, examined" in page
            assert f"| teacher {name} |" in page
        assert "## The teacher knn, examined" not in page
        assert [one["teacher"] for one in json.loads((out / "doctor.json").read_text())] == ["merged", "popularity"]
        shutil.rmtree(out)
    for change, words in (
        ("counted=3", ("learns_from.counted", "no source 3", "has 2")),
        ("count=1", ("no method 'count'", "'counted'")),
        ("counted=0", ("learns_from.counted", "greater than 0")),
    ):
        refused(call("run", file, "--out", out, "--set", f"learns_from.{change}"), *words)
    refused(call("run", file, "--out", out, "--set", "teacher.sources=3"), "teacher.sources")
    refused(call("run", file, "--out", out, "--set", "teacher.kind=bigrec"), "learns_from needs", "'merged'")


def test_an_experiment_merges_what_lies_beside_it(tmp_path: Path) -> None:
    """Other labels behind the same path are other knowledge."""
    write_log(tmp_path / "in", list(log_rows()))
    file, out, known = tmp_path / "in" / "small.toml", tmp_path / "out", tmp_path / "in" / "known"
    table = 'kind = "reference"\nreference = { kind = "popularity" }'
    assert table in CONFIG
    file.write_text(CONFIG.replace(table, 'kind = "knowledge"\npath = "known"'))
    refused(call("run", file, "--out", out), f"{known}: not a knowledge directory")
    (dataset,) = out.glob("dataset-*")
    assert call("teach", dataset, "--teacher", "popularity", "--limit", "30", "--out", known).code == 0
    first = call("run", file, "--out", out, "--json")
    assert first.code == 0, first.err
    assert [stage["name"] for stage in first.json["stages"]][1:3] == ["teach source 1", "teach"]
    assert call("teach", dataset, "--teacher", "popularity", "--out", known).code == 0
    second = call("run", file, "--out", out, "--json")
    assert [stage["cached"] for stage in second.json["stages"]][1:3] == [True, False]


def test_an_experiment_knows_the_vectors_of_a_source_by_their_content(dataset: Path, taught: Path) -> None:
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge import Knowledge
    from dllm2rec.workflow.labelling import request

    source = {"kind": "reference", "vectors": str(taught)}
    asked = request(Dataset.load(dataset), {"kind": "merged", "vectors": "first", "sources": [source]})
    described = {"kind": "reference", "vectors": {"hash": Knowledge.load(taught).content_hash}}
    assert asked["teacher"] == {"kind": "merged", "vectors": "first", "sources": [described]}

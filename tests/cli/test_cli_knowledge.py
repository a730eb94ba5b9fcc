"""Knowledge that is there: what `dllm2rec doctor` says of it, and what becomes of damaged and of foreign files."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL_PAPER, SMALL_TEACHER, call, log_rows, refused, write_log
from safetensors.numpy import load_file, save_file


def test_the_doctor_speaks_and_counts(dataset: Path, taught: Path, runs: dict[str, Path]) -> None:
    page = call("doctor", taught, "--dataset", dataset, "--student-run", runs["plain"], "--test", "--json").json
    assert page["coverage"]["test"]["labelled"] == 12
    assert page["seconds_per_1000"] > 0
    assert {rival["name"] for rival in page["rivals"]} == {"popularity", "item-kNN", "transformer plain"}
    assert {rival["examples"] for rival in page["rivals"] if rival["split"] == "test"} == {12}
    assert page["vectors"] == {"items": 30, "size": 32, "constant_columns": 0, "repeated": 0, "zero": 0}
    assert page["texts"]["texts"] == sum(part["labelled"] for part in page["coverage"].values())
    pupil = ("--student-run", runs["distilled"])
    refused(call("doctor", taught, "--dataset", dataset, *pupil), "a teacher had a part in it", "give a plain run")
    words = call("doctor", taught, "--dataset", dataset).out
    assert "test examples it" not in words
    assert "of mean" not in words
    for word in (
        "and 12 of",
        "popularity",
        "item-kNN",
        "No plain student was given",
        "generated texts",
        "weights",
    ):
        assert word in " ".join(words.split()), word


def damage_shard(knowledge: Path) -> None:
    shard = knowledge / "labels-000000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])


def lose_shard(knowledge: Path) -> None:
    (knowledge / "labels-000000.parquet").unlink()


def shrink_vectors(knowledge: Path) -> None:
    vectors = load_file(knowledge / "item_vectors.safetensors")["item_vectors"]
    save_file({"item_vectors": np.ascontiguousarray(vectors[:, :-1])}, knowledge / "item_vectors.safetensors")


def spoil_vectors(knowledge: Path) -> None:
    vectors = load_file(knowledge / "item_vectors.safetensors")["item_vectors"]
    vectors[3, 0] = np.nan
    save_file({"item_vectors": vectors}, knowledge / "item_vectors.safetensors")


def lose_manifest(knowledge: Path) -> None:
    (knowledge / "manifest.json").unlink()


def cut_manifest(knowledge: Path) -> None:
    (knowledge / "manifest.json").write_text('{"format_version": 1, ')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_shard, ["labels-000000.parquet", "cut"]),
        (lose_shard, ["labels-000000.parquet", "missing"]),
        (shrink_vectors, ["item_vectors.safetensors", "shape"]),
        (spoil_vectors, ["item_vectors.safetensors", "not finite", "item 3"]),
        (lose_manifest, ["not a knowledge directory"]),
        (cut_manifest, ["manifest.json", "JSON"]),
    ],
)
def test_damaged_knowledge_is_refused_by_doctor_and_train(
    damage: object, words: list[str], dataset: Path, knowledge: Path, tmp_path: Path
) -> None:
    assert callable(damage)
    damage(knowledge)
    refused(call("doctor", knowledge, "--dataset", dataset), *words)
    refused(call("train", dataset, "--knowledge", knowledge, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_a_damaged_shard_is_mended_by_teaching_again(dataset: Path, llm: Path, taught: Path, knowledge: Path) -> None:
    damage_shard(knowledge)
    limits = ["--limit", "validation=10", "--limit", "test=12"]
    mended = call("teach", dataset, "--llm", llm, *limits, *SMALL_TEACHER, "--out", knowledge, "--json")
    whole = call("teach", dataset, "--llm", llm, *limits, *SMALL_TEACHER, "--out", taught, "--json")
    assert mended.json["hash"] == whole.json["hash"]


def test_knowledge_of_another_dataset(taught: Path, tmp_path: Path) -> None:
    files = write_log(tmp_path / "in", list(reversed(log_rows())))
    assert call("prepare", *files, "--out", tmp_path / "other").code == 0
    made_of = json.loads((taught / "manifest.json").read_text())["dataset_hash"]
    refused(call("doctor", taught, "--dataset", tmp_path / "other"), "another dataset", made_of)
    refused(
        call("train", tmp_path / "other", "--knowledge", taught, "--out", tmp_path / "run"), "another dataset", made_of
    )
    assert not (tmp_path / "run").exists()


def test_a_plain_run_has_no_use_for_knowledge(runs: dict[str, Path], taught: Path, tmp_path: Path) -> None:
    for asked in (("evaluate", runs["plain"]), ("export", runs["plain"], "--out", tmp_path / "bundle")):
        refused(call(*asked, "--knowledge", taught), str(runs["plain"]), "leave --knowledge out")
    assert not (tmp_path / "bundle").exists()


def test_the_original_codes_files_come_in(dataset: Path, tmp_path: Path) -> None:
    count = json.loads((dataset / "dataset.json").read_text())["counts"]["train"]
    source = tmp_path / "files"
    source.mkdir()
    np.savetxt(source / "myrank_train.txt", np.tile(np.arange(10), (count, 1)), fmt="%d")
    np.savetxt(source / "confidence_train.txt", np.tile(np.arange(10.0), (count, 1)))
    outcome = call("teach", dataset, "--import", source, "--out", tmp_path / "k", "--json")
    assert outcome.json["labels"] == {"train": count, "validation": 0, "test": 0}
    student = ["train", dataset, *SMALL_PAPER, "--knowledge", tmp_path / "k", "--method", "dllm2rec"]
    assert call(*student, "--set", "method.embedding=false", "--out", tmp_path / "run").code == 0
    later = write_log(tmp_path / "later", [(f"u{n}", n % 20, 10**7 + n) for n in range(40)])[:2]
    refused(call("update", tmp_path / "run", *later, "--out", tmp_path / "run-2"), "was imported", "--knowledge")
    refused(call("teach", dataset, "--import", tmp_path / "no", "--out", tmp_path / "k2"), "no such file")

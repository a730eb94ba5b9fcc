"""Texts from a language model, and the students that read them, from the command line."""

from pathlib import Path

import pytest
from cli_helpers import SMALL_PAPER, SMALL_TRAINING, call, refused


@pytest.fixture(scope="module")
def texts(dataset: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("texts") / "knowledge"
    outcome = call(
        "teach",
        dataset,
        *("--teacher", "texts", "--llm", llm),
        *("--set", "tokens=6", "--set", "counts.users=10", "--set", "counts.chains=8"),
        *("--out", out, "--json"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["texts"]["user"] == 10
    assert outcome.json["texts"]["chain"] == 8
    return out


def test_students_that_read_texts_train_evaluate_and_compare(dataset: Path, texts: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert call("train", dataset, *SMALL_PAPER, "--out", tmp_path / "plain").code == 0
    for method in ("kar", "llm-cf"):
        options = ["--knowledge", texts, "--method", method]
        outcome = call("train", dataset, *SMALL_PAPER, *options, "--out", tmp_path / method)
        assert outcome.code == 0, outcome.err
        outcome = call("evaluate", tmp_path / method, "--json")
        assert outcome.code == 0, outcome.err
        assert 0 <= outcome.json["metrics"]["NDCG@20"] <= 1
        zero = call(
            "train", dataset, *SMALL_PAPER, *options, "--set", "method.weight=0", "--out", tmp_path / f"{method}-0"
        )
        assert zero.code == 0, zero.err
        weights = [load_file(next((tmp_path / name).rglob("best*.safetensors"))) for name in ("plain", f"{method}-0")]
        assert weights[0].keys() == weights[1].keys()
        assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
    strong = ["--knowledge", texts, "--method", "llm-cf", *SMALL_TRAINING, "--set", "train_on=examples"]
    assert call("train", dataset, *strong, "--out", tmp_path / "strong").code == 0
    outcome = call("compare", tmp_path / "plain", tmp_path / "kar", tmp_path / "llm-cf", "--json")
    assert outcome.code == 0, outcome.err
    refused(call("export", tmp_path / "kar", "--out", tmp_path / "bundle"), "export", "another method")
    assert not (tmp_path / "bundle").exists()
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n")
    outcome = call("update", tmp_path / "llm-cf", "--interactions", log, "--out", tmp_path / "updated")
    refused(outcome, "update", "another method")
    assert not (tmp_path / "updated").exists()


def test_a_doctor_looks_at_texts(dataset: Path, texts: Path) -> None:
    outcome = call("doctor", texts, "--dataset", dataset)
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "methods kar and llm-cf read what it wrote" in said
    assert "for 1,000 texts" in said


def test_what_can_not_be_read_says_what_to_teach(dataset: Path, taught: Path, texts: Path, tmp_path: Path) -> None:
    for method in ("kar", "llm-cf"):
        options = ["--knowledge", taught, "--method", method]
        refused(call("train", dataset, *SMALL_PAPER, *options, "--out", tmp_path / method), "--teacher texts", method)
    for method in ("kar", "llm-cf"):
        strong = ["--knowledge", texts, "--method", method]
        said = (method, "before-cut", "--protocol paper", "--set train_on=examples")
        refused(call("train", dataset, *strong, "--out", tmp_path / "strong"), *said)
        positions = [*SMALL_PAPER, *strong, "--set", "train_on=positions"]
        refused(call("train", dataset, *positions, "--out", tmp_path / "strong"), method, "positions")
    assert not (tmp_path / "strong").exists()
    few = ["--knowledge", texts, "--method", "llm-cf", "--set", "method.neighbours=50"]
    refused(call("train", dataset, *SMALL_PAPER, *few, "--out", tmp_path / "few"), "neighbours")
    assert not (tmp_path / "few").exists()
    unknown = ["--teacher", "texts", "--set", "counts.user=3"]
    refused(call("teach", dataset, *unknown, "--out", tmp_path / "knowledge"), "counts.user", "users")

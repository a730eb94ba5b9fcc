"""`dllm2rec train`, `evaluate`, `compare` and `report`, and what wrong requests get."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from cli_helpers import SMALL_TRAINING, call, log_rows, refused, write_log

from dllm2rec.core.files import exclusive


def test_a_run_says_what_it_is_and_the_same_again_is_there(dataset: Path, runs: dict[str, Path]) -> None:
    config = json.loads((runs["plain"] / "config.json").read_text())
    assert config["settings"]["training"]["epochs"] == 3
    assert config["dataset"]["hash"] == json.loads((dataset / "dataset.json").read_text())["content_hash"]
    assert config["software"]["torch"]
    lines = (runs["plain"] / "metrics.jsonl").read_text().splitlines()
    again = call("train", dataset, *SMALL_TRAINING, "--out", runs["plain"], "--json").json
    assert again["epochs_run"] == len(lines) == 3
    assert again["hash"] == config["hash"]
    assert again["peak_memory"] is None  # of this process, which trained nothing


def test_a_distilled_run_knows_its_teacher(runs: dict[str, Path], taught: Path) -> None:
    config = json.loads((runs["distilled"] / "config.json").read_text())
    assert Path(config["knowledge"]["path"]) == taught
    assert config["settings"]["student"]["output"] == "tied"
    assert json.loads((runs["distilled"] / "result.json").read_text())["fit"]["labelled"] > 100


def test_the_same_seed_gives_the_same_ranks_and_another_seed_others(dataset: Path, tmp_path: Path) -> None:
    ranks = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert call("train", dataset, *SMALL_TRAINING, "--seed", seed, "--out", tmp_path / name).code == 0
        assert call("evaluate", tmp_path / name).code == 0
        ranks.append(pl.read_parquet(tmp_path / name / "ranks-test.parquet"))
    assert ranks[0].equals(ranks[1])
    assert not ranks[0].equals(ranks[2])


def test_evaluate_on_both_splits_with_and_without_the_history(
    dataset: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    test = call("evaluate", runs["plain"], "--json").json
    validation = call("evaluate", runs["plain"], "--split", "validation", "--json").json
    assert test["examples"] > 0
    assert set(test["metrics"]) == {f"{m}@{k}" for m in ("HR", "NDCG", "MRR") for k in (5, 10, 20)} | {"coverage@20"}
    result = json.loads((runs["plain"] / "result.json").read_text())
    assert validation["metrics"]["NDCG@20"] == pytest.approx(result["fit"]["validation"]["NDCG@20"])
    assert call("evaluate", runs["plain"], "--json").json["metrics"] == test["metrics"]
    # one that does not know what was just chosen; the strong protocol's student does, so masking changes nothing there
    assert call("train", dataset, *SMALL_TRAINING, "--protocol", "paper", "--out", tmp_path / "paper").code == 0
    test = call("evaluate", tmp_path / "paper", "--json").json
    masked = call("evaluate", tmp_path / "paper", "--mask-history", "--json").json
    assert masked["metrics"] != test["metrics"]
    words = call("evaluate", tmp_path / "paper", "--mask-history").out.split()
    assert "items of the history left out" in " ".join(words)


def test_what_was_evaluated_is_not_told_of_another_dataset(runs: dict[str, Path], tmp_path: Path) -> None:
    files = write_log(tmp_path, log_rows())
    assert call("prepare", *files, "--split", "leave-one-out", "--out", tmp_path / "other").code == 0
    assert call("evaluate", runs["plain"]).code == 0
    refused(call("evaluate", runs["plain"], "--dataset", tmp_path / "other"), "another dataset")


def test_leaving_histories_out_is_an_evaluation_of_its_own(runs: dict[str, Path], tmp_path: Path) -> None:
    from dllm2rec import Run, evaluate

    run = Run.load(shutil.copytree(runs["plain"], tmp_path / "run"))
    first = evaluate(run, split="test")
    evaluate(run, split="test", mask_history=True)
    done = run.finished()
    assert done.evaluated("test") == first
    masked = done.evaluated("test", mask_history=True)
    assert masked is not None
    assert masked.mask_history
    assert run.read_ranks("test", mask_history=True).rank.shape == run.read_ranks("test").rank.shape


def test_knowledge_of_other_splits_alone_teaches_no_rankings(dataset: Path, tmp_path: Path) -> None:
    known = tmp_path / "k"
    assert call("teach", dataset, "--teacher", "knn", "--split", "validation", "--out", known).code == 0
    asked = ("train", dataset, "--protocol", "paper", "--knowledge", known, "--method", "dllm2rec")
    asked += ("--set", "method.embedding=false", "--out", tmp_path / "run")
    refused(call(*asked), "labels no training example", "lambda_d=0")
    assert not (tmp_path / "run").exists()


def test_compare_puts_references_teacher_and_students_in_one_table(runs: dict[str, Path]) -> None:
    found = call("compare", runs["plain"], runs["distilled"], "--json").json
    whole, labelled = found["tables"]
    assert [row["label"] for row in whole["rows"]] == [
        "popularity",
        "recent popularity",
        "item-kNN",
        "EASE",
        "item-kNN + text",
        "item-kNN, demand",
        "item-kNN + text, demand",
        "transformer plain",
        "transformer + soft-labels",
    ]
    assert labelled["examples"] == 12
    shown = [row for row in labelled["rows"] if not (row["kind"] == "teacher" and row["label"].endswith("left out"))]
    assert [row["kind"] for row in shown] == ["reference"] * 7 + ["teacher", "student", "student"]
    versus = whole["rows"][8]["versus"]
    assert versus["baseline"] == "transformer plain"
    assert 0 < versus["p_value"] <= 1
    assert all(row["seconds_per_1000"] > 0 for row in labelled["rows"])
    words = " ".join(call("compare", runs["plain"], runs["distilled"]).out.split())
    for word in (
        "Split: paper, test part",
        "soft-labels",
        "Seeds: 1.",
        "validation NDCG@20 only",
        "mean rank",
        "item-kNN + text, demand) count every event before the cut, recent popularity",
        "the newest tenth of that.",
    ):
        assert word in words, word
    assert "No EASE" not in words


def test_a_table_of_too_many_items_has_no_ease_and_says_so(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.evaluation.references import EASE_ITEMS, REFERENCES
    from dllm2rec.teachers.ease import EASESettings

    assert REFERENCES["EASE"] == EASESettings(max_items=EASE_ITEMS)
    monkeypatch.setitem(REFERENCES, "EASE", EASESettings(max_items=29))
    (table,) = call("compare", runs["plain"], "--json").json["tables"]
    assert [row["label"] for row in table["rows"]][:3] == ["popularity", "recent popularity", "item-kNN"]
    assert "EASE" not in {row["label"] for row in table["rows"]}
    assert "EASE is left out beyond 12,000 items." in " ".join(table["notes"])
    monkeypatch.setitem(REFERENCES, "EASE", EASESettings(max_items=30))
    (table,) = call("compare", runs["plain"], "--json").json["tables"]
    assert "EASE" in {row["label"] for row in table["rows"]}


def test_runs_that_differ_in_the_seed_become_one_row(dataset: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    second = call("train", dataset, *SMALL_TRAINING, "--seed", 2, "--out", tmp_path / "second", "--json").json
    assert 10**8 < second["peak_memory"] < 10**11
    rows = call("compare", runs["plain"], tmp_path / "second", runs["plain"], "--json").json["tables"][0]["rows"]
    (row,) = [row for row in rows if row["kind"] == "student"]
    assert row["seeds"] == [1, 2]
    assert row["spread"]["NDCG@20"] >= 0


def test_a_teacher_that_lies_in_two_places_is_one(
    dataset: Path, runs: dict[str, Path], knowledge: Path, tmp_path: Path
) -> None:
    again = ("--seed", 2, "--knowledge", knowledge, *SMALL_TRAINING, "--out", tmp_path / "again")
    assert call("train", dataset, *again).code == 0
    tables = call("compare", runs["distilled"], tmp_path / "again", "--json").json["tables"]
    shown = [[row["label"] for row in table["rows"] if row["kind"] == "teacher"] for table in tables]
    assert shown[0] == []
    assert len([label for label in shown[1] if not label.endswith("left out")]) == 1


def test_the_report_is_one_file_that_needs_no_network(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert call("report", runs["plain"], runs["distilled"], "--out", out, "--name", "a <b> test").code == 0
    html = out.read_text()
    page = html[: html.index("<script>")] + html[html.index("</script>") :]
    assert "did the teacher teach the small one anything?" in page
    assert page.count("a &lt;b&gt; test") == 2
    assert "<b>" not in page
    assert "Dogs &amp; &lt;b&gt;cats&lt;/b&gt;" in page
    assert "prefers-color-scheme: dark" in html
    for needle in ('src="http', "src='http", 'href="http', "@import", "<link"):
        assert needle not in page
    assert page.count('class="user"') == 12  # as many as the teacher labelled; at most 20
    # curves, bars by popularity (all histories are long), overlap before and after, confidence
    assert page.count('class="plotly-graph-div"') == 4


def test_a_report_about_one_plain_run(runs: dict[str, Path], tmp_path: Path) -> None:
    outcome = call("report", runs["plain"], "--out", tmp_path / "r.html")
    assert outcome.code == 0
    assert "No student here was taught" in outcome.out
    assert "which one to ship?" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "training.epoch=3"], ["training.epoch", "did you mean 'training.epochs'"]),
        (["--loss", "softmux"], ["'--loss': 'softmux' is not one of 'softmax'", "dllm2rec train --help"]),
        (["--seed", "-1"], ["'--seed'", "greater than or equal to 0"]),
        (["--method", "none", "--variant", "paper"], ["--variant paper: it is of method dllm2rec, this is none"]),
        (["--set", "training.epochs=0"], ["training.epochs", "greater than 0"]),
        (["--set", "student.dropout=1.5"], ["student.dropout", "less than 1"]),
        (["--student", "caser", "--set", "student.heights=[]"], ["student.heights", "at least 1"]),
        (["--student", "caser", "--set", "student.heights=[2, 0]"], ["student.heights", "greater than 0"]),
        (["--set", "student.kind=sasrek"], ["student.kind", "did you mean 'sasrec'"]),
        (["--loss", "bce", "--set", "loss.negatives=none"], ["loss.negatives", "whole number"]),
        (["--method", "dllm2rec"], ["--knowledge"]),
        (["--loss", "sampled-softmax", "--set", "loss.negatives=99999"], ["99999", "items were seen in training"]),
        (["--set", "loss.scores_at_once=0"], ["loss.scores_at_once", "greater than 0"]),
        (["--protocol", "strong", "--method", "vectors"], ["method vectors", "--knowledge"]),
        (["--knowledge", "/nowhere"], ["/nowhere: no such directory", "`dllm2rec teach` makes one"]),
        (["--set", "training.learning_rate=inf"], ["training.learning_rate", "inf is not allowed"]),
    ],
)
def test_bad_settings(options: list[str], words: list[str], dataset: Path, tmp_path: Path) -> None:
    refused(call("train", dataset, *options, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_a_list_longer_than_the_teachers(dataset: Path, taught: Path, tmp_path: Path) -> None:
    asked = ("--protocol", "paper", "--knowledge", taught, "--set", "method.top_k=26")
    refused(call("train", dataset, *asked, "--out", tmp_path / "r"), "26", "25")
    assert not (tmp_path / "r").exists()


def test_a_run_with_other_settings_stays(dataset: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    refused(
        call("train", dataset, *SMALL_TRAINING, "--set", "student.dim=8", "--out", runs["plain"]),
        "student.dim is 16, asked for 8",
    )
    (tmp_path / "thesis.txt").write_text("mine")
    refused(call("train", dataset, "--out", tmp_path), "something else")


def test_two_do_not_train_in_one_place(dataset: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    with exclusive(tmp_path / "run"):
        refused(call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run"), str(tmp_path / "run"), "another")
    assert not list(tmp_path.iterdir())
    with exclusive(runs["plain"]):  # who only reads is free
        assert call("evaluate", runs["plain"]).code == 0
        assert call("compare", runs["plain"]).code == 0


EVALUATION = """
import sys, time
from pathlib import Path
from dllm2rec.cli.main import main
from dllm2rec.workflow.runs import Run
run = Path(sys.argv[2])
write_ranks, write_result = Run.write_ranks, Run.write_result

def meet(*arguments, **options):
    write_ranks(*arguments, **options)
    end = time.monotonic() + 60
    while len(list(run.glob("ranks-*.parquet"))) < 2 and time.monotonic() < end:  # both have read that none is done
        time.sleep(0.01)

def dawdle(*arguments):
    time.sleep(0.5)
    write_result(*arguments)

Run.write_ranks, Run.write_result = meet, dawdle
main()
"""


def test_two_evaluate_one_run_at_the_same_time(dataset: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["plain"], tmp_path / "run", ignore=shutil.ignore_patterns("ranks-*")))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"evaluation": {}}))
    splits = ("validation", "test")
    options = ["--dataset", str(dataset)]
    both = [
        subprocess.Popen([sys.executable, "-c", EVALUATION, "evaluate", str(run), "--split", split, *options])
        for split in splits
    ]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    assert json.loads((run / "result.json").read_text())["evaluation"].keys() == set(splits)
    assert not list(run.glob(".*"))


def test_a_run_that_was_killed_as_it_began_goes_on(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / ".config.json.ab12.tmp").mkdir(parents=True)
    assert call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run").code == 0
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_things_that_are_no_run(dataset: Path, tmp_path: Path) -> None:
    for verb in ("evaluate", "compare"):
        refused(call(verb, dataset), "not a run directory", "dllm2rec train")
    refused(call("report", tmp_path / "no", "--out", tmp_path / "r.html"), "no such directory", "dllm2rec train")
    refused(call("report", dataset, "--out", tmp_path), "is a directory; name the file", "report.html")
    assert not (tmp_path / "r.html").exists()


def test_damaged_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["plain"], tmp_path / "run"))
    weights = run / "checkpoint" / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(call("evaluate", run, "--mask-history", "--split", "validation"), "best.safetensors", "damaged")
    (run / "result.json").unlink()
    refused(call("evaluate", run), "has not ended")
    (run / "config.json").write_text('{"format_version": 1}')
    refused(call("evaluate", run), "config.json", "another version or damaged")


def test_runs_on_different_datasets(runs: dict[str, Path], tmp_path: Path) -> None:
    files = write_log(tmp_path / "in", list(reversed(log_rows())))
    assert call("prepare", *files, "--out", tmp_path / "other").code == 0
    assert call("train", tmp_path / "other", *SMALL_TRAINING, "--out", tmp_path / "run").code == 0
    refused(call("compare", runs["plain"], tmp_path / "run"), "another dataset")


def test_a_dataset_that_was_moved_is_found_by_its_option(dataset: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(dataset, tmp_path / "first"))
    assert call("train", first, *SMALL_TRAINING, "--out", tmp_path / "run").code == 0
    (tmp_path / "elsewhere").mkdir()
    first.rename(tmp_path / "elsewhere" / "second")
    run = tmp_path / "run"
    words = [f"{run}: its dataset lay in {first}", "put it back"]  # which is next to the run
    refused(call("evaluate", run), *words, f"dllm2rec evaluate {run} --dataset DATASET")
    refused(call("export", run, "--out", tmp_path / "bundle"), *words, "say where it is: --dataset DATASET")
    for verb in (["compare", run], ["update", run, "--interactions", __file__, "--out", tmp_path / "run-2"]):
        outcome = call(*verb)
        refused(outcome, *words)
        assert "--dataset" not in outcome.err
        assert "prepare" not in outcome.err
    first.mkdir()  # as a mount is that is not mounted
    refused(call("evaluate", run), *words)
    assert call("evaluate", tmp_path / "run", "--dataset", tmp_path / "elsewhere" / "second").code == 0


def test_knowledge_and_dataset_that_were_moved_with_the_run_are_found(
    dataset: Path, taught: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    data, known = Path(shutil.copytree(dataset, here / "data")), Path(shutil.copytree(taught, here / "known"))
    assert call("train", data, "--knowledge", known, *SMALL_TRAINING, "--out", here / "runs" / "a").code == 0
    here.rename(tmp_path / "there")
    assert call("evaluate", tmp_path / "there" / "runs" / "a").code == 0
    shutil.move(tmp_path / "there" / "known", tmp_path / "known2")
    again = ["evaluate", tmp_path / "there" / "runs" / "a", "--split", "validation"]
    words = ["its knowledge lay in", str(here / "known"), "put it back, or move it next to the run"]
    words += [str(tmp_path / "there" / "runs" / "known")]
    refused(call(*again), *words, f"{' '.join(map(str, again[1:]))} --knowledge KNOWLEDGE")
    refused(call("compare", again[1], *again[2:]), *words, "dllm2rec evaluate")
    refused(call("export", again[1], "--out", tmp_path / "bundle"), *words, "say where it is: --knowledge KNOWLEDGE")
    assert call(*again, "--knowledge", tmp_path / "known2").code == 0


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission")])
def test_a_disk_that_refuses(
    number: int, words: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if "checkpoint" in str(target):
            raise OSError(number, "refused", str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        refused(call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run"), words)
    assert not (tmp_path / "run" / "result.json").exists()
    assert call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run").code == 0


def test_ctrl_c_and_the_same_command_again_end_with_the_same_weights(
    dataset: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.training import loop

    save = loop.save_checkpoint

    def interrupt(run: Path, *rest: object) -> None:
        save(run, *rest)  # type: ignore[arg-type]  # passed on as it came
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", interrupt)
        outcome = call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run")
    assert outcome.code == 130
    assert "the same command again goes on" in outcome.err
    assert "Traceback" not in outcome.err
    refused(call("evaluate", tmp_path / "run"), "has not ended")
    assert call("train", dataset, *SMALL_TRAINING, "--out", tmp_path / "run").code == 0
    weights = [path / "checkpoint" / "best.safetensors" for path in (tmp_path / "run", runs["plain"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_knowledge_that_has_changed_is_not_taken_for_the_teacher(dataset: Path, tmp_path: Path) -> None:
    """Labels may grow in place; what an earlier run learned from is then gone."""
    teach = ["teach", dataset, "--teacher", "knn", "--choose", "random", "--out", tmp_path / "k"]
    taught = ["--knowledge", tmp_path / "k", "--set", "method.embedding=false", *SMALL_TRAINING]
    assert call(*teach, "--limit", "train=40").code == 0
    assert call("train", dataset, *taught, "--out", tmp_path / "few").code == 0
    assert any(
        row["kind"] == "teacher" for row in call("compare", tmp_path / "few", "--json").json["tables"][0]["rows"]
    )
    shutil.rmtree(tmp_path / "k")
    assert call(*teach, "--limit", "train=80").code == 0
    assert call("train", dataset, *taught, "--out", tmp_path / "more").code == 0
    (table,) = call("compare", tmp_path / "few", "--json").json["tables"]
    assert all(row["kind"] != "teacher" for row in table["rows"])
    assert f"The teacher's knowledge is no longer at {tmp_path / 'k'}, or has changed." in table["notes"]
    (table,) = call("compare", tmp_path / "few", tmp_path / "more", "--json").json["tables"]
    assert any(row["kind"] == "teacher" for row in table["rows"])

"""`dllm2rec run`: the whole experiment, twice, interrupted, with a cell that fails."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import SMALL_TEACHER, call, log_rows, refused, write_log

from dllm2rec.core.files import exclusive

CONFIG = """
name = "small"
seeds = [1, 2]
protocol = "paper"
[dataset]
interactions = "log.csv"
items = "items.csv"
[dataset.split]
kind = "paper"
history = 5
[teacher]
{teacher}
[students.SASRec.student]
kind = "sasrec"
dim = 16
[students.DROS]
student = {{ kind = "sasrec", dim = 16 }}
loss = {{ kind = "dros" }}
[methods.plain]
kind = "none"
[methods.taught]
kind = "dllm2rec"
embedding = {embedding}
[search]
trials = 2
methods.plain.training.weight_decay.choices = [0.0, 1e-3]
methods.taught.method.lambda_d.choices = [0.3, 1.0]
[training]
epochs = 3
batch_size = 64
"""
COUNTING = 'kind = "reference"'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An experiment whose teacher counts."""
    write_log(tmp_path, list(log_rows()))
    file = tmp_path / "small.toml"
    file.write_text(CONFIG.format(teacher=COUNTING, embedding="false"))
    return file


def test_an_experiment_with_a_language_model(tmp_path: Path, llm: Path) -> None:
    write_log(tmp_path, list(log_rows()))
    teacher = [f'kind = "bigrec"\nllm = "{llm}"', "limits.validation = 10", "limits.test = 12"]
    teacher += [text for text in SMALL_TEACHER if text != "--set"]
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(CONFIG.format(teacher="\n".join(teacher), embedding="true"))
    first = call("run", file, "--out", out, "--json")
    assert first.code == 0, first.err
    assert not any(stage["cached"] for stage in first.json["stages"] if stage["name"].startswith(("prepare", "teach")))
    whole, labelled = first.json["comparison"]["tables"]
    names = ["SASRec plain", "SASRec + taught", "DROS plain", "DROS + taught"]
    assert [row["label"] for row in whole["rows"] if row["kind"] == "student"] == names
    assert all(row["seeds"] == [1, 2] for row in whole["rows"] if row["kind"] == "student")
    assert labelled["examples"] == 12
    for name in ("report.html", "results.md", "comparison.json", "search.json", "doctor.json"):
        assert (out / name).is_file(), name
    summary = (out / "results.md").read_text()
    for words in ("## The teacher bigrec (", "method.lambda_d=0.3", "chosen", "together:"):
        assert words in summary, words
    choices = first.json["search"]
    assert [len(choice["trials"]) for choice in choices] == [2] * 4
    for choice in choices:
        values = [trial["validation"] for trial in choice["trials"]]
        assert values[choice["chosen"]] == max(values)

    start = time.monotonic()
    second = call("run", file, "--out", out, "--json")
    assert time.monotonic() - start < 60
    assert all(stage["cached"] for stage in second.json["stages"])
    assert second.json["comparison"] == first.json["comparison"]
    assert "[2/27] teach: cached" in second.err
    assert "[27/27] compare and report: cached" in second.err


def test_a_changed_setting_redoes_what_depends_on_it_alone(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.evaluation.references import REFERENCES
    from dllm2rec.teachers.ease import EASESettings

    out = tmp_path / "out"
    first = call("run", config, "--out", out, "--json")
    assert first.code == 0, first.err
    second = call("run", config, "--out", out, "--set", "methods.taught.top_k=5", "--json")
    fresh = [stage["name"] for stage in second.json["stages"] if not stage["cached"]]
    assert fresh
    assert all("taught" in name or name == "compare and report" for name in fresh)
    monkeypatch.setitem(REFERENCES, "EASE", EASESettings(regularisation=1))
    other = call("run", config, "--out", out, "--set", "methods.taught.top_k=5", "--json")
    assert [stage["name"] for stage in other.json["stages"] if not stage["cached"]] == ["compare and report"]
    assert other.json["comparison"] != second.json["comparison"]
    for gone in ("report.html", "comparison.json", "results.md"):
        (out / gone).unlink()
        assert call("run", config, "--out", out, "--set", "methods.taught.top_k=5").code == 0
        assert (out / gone).is_file()
    named = call("run", config, "--out", out, "--set", "methods.taught.top_k=5", "--set", "dataset.name=toys", "--json")
    assert {stage["name"] for stage in named.json["stages"] if not stage["cached"]} == {"prepare", "compare and report"}
    assert named.json["comparison"]["dataset"] == "toys"
    assert len(list(out.glob("dataset-*"))) == 1
    (tmp_path / "log.csv").write_text((tmp_path / "log.csv").read_text() + "u0,3,2000000\n")
    third = call("run", config, "--out", out, "--json")
    assert not any(stage["cached"] for stage in third.json["stages"] if stage["name"].startswith(("prepare", "teach")))


def test_a_cell_that_fails_leaves_the_others(config: Path, tmp_path: Path) -> None:
    failing = ["--set", "methods.taught.top_k=200", "--json"]
    tuned = call("tune", config, "--out", tmp_path / "out", *failing)
    assert tuned.code == 2  # as `run` ends
    assert "failed: search SASRec, taught" in tuned.err
    assert [choice["method"] for choice in tuned.json] == ["plain", "plain"]
    outcome = call("run", config, "--out", tmp_path / "out", *failing)
    assert outcome.code == 2
    assert "failed: search SASRec, taught" in outcome.err
    rows = outcome.json["comparison"]["tables"][0]["rows"]
    assert [row["label"] for row in rows if row["kind"] == "student"] == ["SASRec plain", "DROS plain"]
    mended = call("run", config, "--out", tmp_path / "out", "--json")
    assert mended.code == 0
    cached = [stage["name"] for stage in mended.json["stages"] if stage["cached"]]
    assert "train DROS, plain, seed 2" in cached


def test_tuning_alone_and_then_all(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--set", "search.ranges={training.learning_rate = {low = 1e-4, high = 1e-1, log = true}}"]
    more += ["--set", "search.trials=3"]
    tuned = call("tune", config, "--out", out, *more, "--json")
    assert tuned.code == 0, tuned.err
    assert [len(choice["trials"]) for choice in tuned.json] == [3] * 4
    assert all(set(choice["trials"][0]["change"]) > {"training.learning_rate"} for choice in tuned.json)
    again = call("tune", config, "--out", out, *more)
    assert again.code == 0
    assert "chosen" in again.out
    command = again.out.partition("all seeds with what was chosen: ")[2].strip()
    assert command == f"dllm2rec run {config} --out {out} {shlex.join(more)}"
    done = call("run", config, "--out", out, *more, "--json")
    assert done.code == 0, done.err
    assert done.json["search"] == tuned.json
    assert all(stage["cached"] for stage in done.json["stages"] if stage["name"].startswith("try"))


def test_trials_that_fail_are_told_once_and_not_tried_again(config: Path, tmp_path: Path) -> None:
    rates = "{methods.plain.training.learning_rate = {choices = [1e30, 3e-3]}, methods.taught.training.learning_rate = "
    rates += "{choices = [1e30, 3e-3]}, trials = 2}"
    for jobs in (1, 2):
        command = ["tune", config, "--out", tmp_path / f"{jobs}", "--set", f"search={rates}", "--jobs", jobs]
        first, second = call(*command), call(*command, "--json")
        assert first.code == second.code == 0, first.err
        assert first.err.count("FAILED, training diverged") == 4
        assert "try DROS, taught, training.learning_rate=1e+30: FAILED" in first.err
        assert second.err.count("FAILED, training diverged") == 4
        assert " ..." not in second.err  # nothing is trained
        assert "[10/10] try" in second.err
        assert all("diverged" in choice["trials"][0]["error"] for choice in second.json)
        assert all(choice["chosen"] == 1 for choice in second.json)
    fewer = call(*command, "--set", "search.trials=1")
    assert fewer.code == 2
    assert "every trial of the search failed" in fewer.err


def test_trials_beyond_those_that_were_asked_for_are_told(config: Path, tmp_path: Path) -> None:
    command = ["tune", config, "--out", tmp_path / "out", "--set", "search.trials"]
    assert call(*command[:-1], f"{command[-1]}=2").code == 0
    told = call(*command[:-1], f"{command[-1]}=1").err
    assert "SASRec, plain: 2 trials are known, but search.trials = 1 leaves out the last 1;" in told


def test_tables_of_the_paper_have_the_seeds_of_the_experiment_and_no_trials(config: Path, tmp_path: Path) -> None:
    done = call("run", config, "--out", tmp_path / "out", "--json")  # its search has seed 0
    assert done.code == 0, done.err
    wanted = {row["label"]: row["metrics"] for row in done.json["comparison"]["tables"][0]["rows"]}
    found = call("paper", tmp_path / "out", "--table", 5, "--json")
    assert found.code == 0, found.err
    text = json.dumps(found.json)
    assert "Seeds: 1, 2" in text
    for label in ("SASRec plain", "DROS plain"):
        assert f"{wanted[label]['NDCG@20']:.4f}".removeprefix("0") in text


def figures(comparison: dict[str, Any]) -> list[object]:
    """What a comparison measured, without the time it took."""
    return [(row["label"], row["metrics"]) for table in comparison["tables"] for row in table["rows"]]


def test_tables_of_the_paper_are_of_the_last_settings(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    text = config.read_text()
    config.write_text(text[: text.index("[search]")] + text[text.index("[training]") :])
    asked = ["--out", tmp_path / "out", "--set", "seeds=[1]"]
    with monkeypatch.context() as patch:
        patch.setattr("dllm2rec.experiments.pipeline.write_report", interrupt)
        assert call("run", config, *asked).code == 130
    refused(call("paper", tmp_path / "out", "--table", 5), "an experiment that has not ended")
    first = call("run", config, *asked, "--json")  # three epochs, which validation prefers
    changed = call("run", config, *asked, "--set", "training.epochs=1", "--json")
    assert (first.code, changed.code) == (0, 0)
    assert "replacing the report there" not in first.err
    assert "replacing the report there, which was made with other settings; its runs stay" in changed.err
    for done, epochs in ((changed, 1), (first, 3)):
        assert call("run", config, *asked, "--set", f"training.epochs={epochs}").code == 0
        (plain,) = (
            row["metrics"]["NDCG@20"]
            for row in done.json["comparison"]["tables"][0]["rows"]
            if row["label"] == "SASRec plain"
        )
        told = json.dumps(call("paper", tmp_path / "out", "--table", 5, "--json").json)
        assert f"{plain:.4f}".removeprefix("0") in told
    with monkeypatch.context() as patch:
        patch.setattr("dllm2rec.experiments.pipeline.write_report", interrupt)
        assert call("run", config, *asked, "--set", "training.epochs=2").code == 130
    resumed = call("run", config, *asked, "--json")
    assert "of other settings" not in resumed.err  # of what was interrupted there is no report
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    for comparison in (resumed.json["comparison"], written):
        assert figures(comparison) == figures(first.json["comparison"]) != figures(changed.json["comparison"])
    other = call("run", config, *asked, "--set", "dataset.split.kind=leave-one-out", "--json")
    assert other.code == 0, other.err
    assert call("paper", tmp_path / "out", "--table", 5, "--json").code == 0


def test_an_experiment_without_a_search_has_nothing_to_tune(config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    config.write_text(text[: text.index("[search]")] + text[text.index("[training]") :])
    refused(call("tune", config, "--out", tmp_path / "out"), "nothing to tune", "[search]")


def test_two_jobs_find_what_one_finds(config: Path, tmp_path: Path) -> None:
    one = call("run", config, "--out", tmp_path / "one", "--json")
    two = call("run", config, "--out", tmp_path / "two", "--jobs", 2, "--set", "methods.more={kind = 'none'}", "--json")
    assert two.code == 2  # more has nothing to search
    two = call("run", config, "--out", tmp_path / "two", "--jobs", 2, "--json")
    assert two.code == 0, two.err
    assert "left" in two.err
    rows = [outcome.json["comparison"]["tables"][0]["rows"] for outcome in (one, two)]
    metrics = [[(row["label"], row["metrics"]) for row in found if row["kind"] == "student"] for found in rows]
    assert metrics[0] == metrics[1]
    assert len(two.json["stages"]) == len(one.json["stages"])
    failing = ["--jobs", 2, "--set", "methods.taught.top_k=200", "--json"]
    third = call("run", config, "--out", tmp_path / "two", *failing)
    assert third.code == 2
    assert "failed: search DROS, taught" in third.err


def test_a_defect_in_a_cell_is_ours(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dllm2rec.workflow import training

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(training, "build_method", broken)
    outcome = call("run", config, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "ZeroDivisionError: no" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in (tmp_path / "out" / "failures.log").read_text()
    assert "SASRec plain" in " ".join(outcome.out.split())


def test_ctrl_c_and_again(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dllm2rec.training import loop

    calls = []
    save = loop.save_checkpoint

    def interrupt(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]  # passed on as it came
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", interrupt)
        outcome = call("run", config, "--out", tmp_path / "out")
    assert outcome.code == 130
    assert "the same command again goes on" in outcome.err
    again = call("run", config, "--out", tmp_path / "out", "--json")
    assert again.code == 0, again.err
    fresh = call("run", config, "--out", tmp_path / "fresh", "--json")
    for one, other in zip(*(found.json["comparison"]["tables"][0]["rows"] for found in (again, fresh)), strict=True):
        assert one["metrics"] == other["metrics"]


def test_kill_9_and_again(config: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "dllm2rec", "run", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([*program, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, env=environment)
    assert running.stderr is not None
    for line in running.stderr:
        if line.rpartition(b"] ")[2].startswith(b"try SASRec, taught"):
            break
    running.send_signal(signal.SIGKILL)
    running.communicate()
    again = call("run", config, "--out", tmp_path / "out", "--json")
    assert again.code == 0, again.err
    cached = [stage["name"] for stage in again.json["stages"] if stage["cached"]]
    assert "teach" in cached
    assert "train SASRec, plain, seed 1" in cached


@pytest.mark.parametrize(("stop", "code", "words"), [("ctrl-c", 130, "goes on"), ("memory", 2, "fewer --jobs")])
def test_two_jobs_that_are_stopped_leave_one_line(
    stop: str, code: int, words: str, config: Path, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "dllm2rec", "run", str(config)]
    program += ["--out", str(tmp_path / "out"), "--jobs", "2", "--set", "training.epochs=100000"]
    running = subprocess.Popen(program, stderr=subprocess.PIPE, start_new_session=True)
    try:
        while len(list((tmp_path / "out").glob("runs/*/metrics.jsonl"))) < 2:
            assert running.poll() is None
            time.sleep(0.1)
        if stop == "ctrl-c":
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does: all of them get it
        else:
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            os.kill(workers[0], signal.SIGKILL)
        _, error = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == code, error
    assert words in " ".join(error.decode().split())
    assert b"Traceback" not in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "search.methods.tough={training.epochs.choices = [1]}"], ["search.methods", "tough"]),
        (["--set", "training.epochs=-1"], ["small.toml", "training.epochs", "greater than 0"]),
        (["--set", "students.SASRec.student.kind=sas"], ["students.SASRec.student.kind", "did you mean 'sasrec'"]),
        (
            ["--set", "students.SASRec.student.dims=3"],
            ["students.SASRec.student.dims", "did you mean 'students.SASRec.student.dim'"],
        ),
        (["--set", "teacher.dept=3"], ["teacher.dept", "did you mean 'teacher.depth'"]),
        (["--set", "teacher.kind=gpt"], ["teacher.kind", "gpt"]),
        (["--set", "seeds=[1, 1]"], ["seed"]),
        (["--set", "seeds=[]"], ["seeds"]),
        (["--set", "seeds=[-1]"], ["seeds.0", "a whole number at least 0"]),
        (["--set", "methods.taught.kind=soft-labels"], ["'SASRec'", "'taught'", "in the student's table"]),
        (
            ["--set", "methods.taught={kind = 'soft-labels'}", "--set", "search.ranges={loss.kind.choices = ['bce']}"],
            ["search", "'taught'", "in the student's table"],
        ),
        (["--set", "dataset.source=ml-100k"], ["dataset", "either a source"]),
        (["--set", "dataset.interactions=absent.csv"], ["absent.csv", "no such file"]),
        (["--set", "search.methods.plain={}"], ["'plain' has nothing to search"]),
        (
            ["--set", "search.methods.plain={method.lambda_d.choices = [1]}"],
            ["search", "'SASRec'", "'plain'", "method.lambda_d"],
        ),
    ],
)
def test_bad_experiments(options: list[str], words: list[str], config: Path, tmp_path: Path) -> None:
    refused(call("run", config, *options, "--out", tmp_path / "out"), *words)
    assert not list((tmp_path / "out").glob("dataset-*"))


def test_experiments_that_are_no_toml_or_not_there(tmp_path: Path) -> None:
    refused(call("run", tmp_path / "no.toml"), "no.toml", "no such file")
    (tmp_path / "bad.toml").write_text("name = ")
    refused(call("run", tmp_path / "bad.toml"), "bad.toml", "not a TOML file")
    (tmp_path / "empty.toml").write_text("")
    refused(call("run", tmp_path / "empty.toml"), "dataset is missing")
    (tmp_path / "taught.toml").write_text(
        '[dataset]\nsource = "ml-100k"\n[students.a.student]\nkind = "caser"\n[methods.b]\nkind = "dllm2rec"\n'
    )
    refused(call("run", tmp_path / "taught.toml"), "needs a teacher")
    (tmp_path / "released.toml").write_text(
        '[dataset]\nsource = "ml-100k"\n[teacher]\nkind = "reference"\n[students.a.student]\nkind = "sasrec"\n'
        '[methods.b]\nkind = "dllm2rec"\nvariant = "released"\n'
    )
    out = tmp_path / "out"
    refused(call("run", tmp_path / "released.toml", "--out", out), "student 'a', method 'b'", "protocol to 'paper'")
    assert not out.exists()


def test_an_output_directory_that_holds_something_else(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused(call("run", config, "--out", tmp_path / "mine"), "something else")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_two_do_not_work_on_one_experiment(config: Path, tmp_path: Path) -> None:
    with exclusive(tmp_path / "out"):
        for verb in ("run", "tune"):
            refused(call(verb, config, "--out", tmp_path / "out"), str(tmp_path / "out"), "another dllm2rec")
    assert not (tmp_path / "out").exists()


def test_a_report_that_is_replaced_by_that_of_another_experiment_is_named(config: Path, tmp_path: Path) -> None:
    """Experiments may share a directory, and what they have in common."""
    text = config.read_text()
    config.write_text(text[: text.index("[search]")] + text[text.index("[training]") :])
    some = ["--out", tmp_path / "out", "--set", "seeds=[1]", "--set", "training.epochs=1"]
    words = "replacing the report of 'small' there by that of 'other'"
    first = call("run", config, *some)
    assert first.code == 0, first.err
    again = call("run", config, *some)
    assert "compare and report: cached" in again.err
    other = call("run", config, *some, "--set", "name=other")
    assert other.code == 0, other.err
    assert other.err.splitlines()[0] == f"{tmp_path / 'out'}: {words}; the runs of both stay"
    assert "replacing" not in first.err + again.err
    assert "train SASRec, plain, seed 1: cached" in other.err
    assert "compare and report: done" in other.err  # it has its own name in it
    assert "other" in (tmp_path / "out" / "results.md").read_text().splitlines()[0]
    assert "replacing" not in call("run", config, *some, "--set", "name=other").err


def test_the_experiments_that_come_along_are_sound() -> None:
    from dllm2rec.settings.config import load_config

    files = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
    assert {file.stem for file in files} >= {"demo", "toys"}
    for file in files:
        config = load_config(file)
        assert config.teacher is not None
        assert config.teacher.kind in {"bigrec", "retrieval", "reference", "texts", "merged"}
        assert json.dumps(config.model_dump(mode="json"))
        named = tomllib.loads(file.read_text())["protocol"]  # by itself: the default may be another one day
        cells = [config.cell(student, method) for student in config.students for method in config.methods]
        protocols = {cell.protocol for cell in cells}
        assert protocols == ({"paper", "strong"} if file.stem == "demo" else {named})
        assert named == ("strong" if file.stem in {"best", "parts"} else "paper")

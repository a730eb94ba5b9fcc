"""`dllm2rec train --method ...` for the methods that DLLM2Rec is compared with."""

import json
from pathlib import Path

import pytest
from cli_helpers import SMALL_TRAINING, call, refused
from pydantic import TypeAdapter
from typer.main import get_command

from dllm2rec.cli.main import app
from dllm2rec.distillation.methods import MethodSettings
from dllm2rec.settings.config import load_config

SMALL = {
    "hint": ["method.hidden=8"],
    "htd": ["method.groups=3", "method.hidden=8"],
    "rd": ["method.warm_up=1"],
    "cd": ["method.depth=20"],
    "rrd": ["method.depth=20", "method.interesting=5", "method.uninteresting=5"],
    "dcd": ["method.depth=20", "method.samples=5"],
    "unkd": ["method.depth=25"],
}


def test_the_help_names_every_method() -> None:
    verb = get_command(app).commands["train"]  # type: ignore[attr-defined]
    option = next(option for option in verb.params if option.name == "method")
    kinds = TypeAdapter(MethodSettings).json_schema()["discriminator"]["mapping"]
    assert set(option.metavar.strip("[]").split("|")) == set(kinds)


@pytest.fixture(scope="module")
def taught_runs(dataset: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("methods"), {}
    for name, changes in SMALL.items():
        found[name] = folder / name
        options = [word for change in changes for word in ("--set", change)]
        outcome = call(
            *("train", dataset, "--knowledge", taught, "--method", name),
            *("--protocol", "paper", "--student", "gru4rec"),
            *(*SMALL_TRAINING, *options, "--out", found[name], "--json"),
        )
        assert outcome.code == 0, outcome.err
        assert outcome.json["method"] == name
    return found


def test_each_method_has_its_own_run_and_they_are_compared(taught_runs: dict[str, Path]) -> None:
    weights = {(run / "checkpoint" / "best.safetensors").read_bytes() for run in taught_runs.values()}
    assert len(weights) == len(SMALL)
    sizes = {len(content) for content in weights}
    assert len(sizes) == 1  # what a method learns beside the student is no part of it
    rows = call("compare", *taught_runs.values(), "--json").json["tables"][0]["rows"]
    assert {f"gru4rec + {name}" for name in SMALL} <= {row["label"] for row in rows}


def test_the_same_again_is_there_and_the_student_serves_without_its_teacher(taught_runs: dict[str, Path]) -> None:
    config = json.loads((taught_runs["rrd"] / "config.json").read_text())
    assert config["settings"]["method"]["interesting"] == 5
    assert config["settings"]["student"]["output"] == "separate"
    assert call("evaluate", taught_runs["htd"]).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "rrrd"], ["method.kind", "unknown 'rrrd'", "did you mean 'rrd'"]),
        (["--method", "unknd"], ["did you mean 'unkd'"]),
        (["--method", "rd", "--set", "method.topk=3"], ["method.topk", "did you mean 'method.top_k'"]),
        (["--method", "rrd"], ["lists 25 items", "rrd reads 500", "dllm2rec teach --set depth=500", "method.depth=25"]),
        (["--method", "dcd", "--set", "method.samples=600"], ["samples is 600"]),
    ],
)
def test_wrong_methods(options: list[str], words: list[str], dataset: Path, taught: Path, tmp_path: Path) -> None:
    refused(call("train", dataset, "--knowledge", taught, *options, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SMALL)
def test_a_method_without_a_teacher(name: str, dataset: Path, tmp_path: Path) -> None:
    refused(call("train", dataset, "--method", name, "--out", tmp_path / "run"), f"method {name}", "--knowledge")


def test_methods_in_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    methods = "\n".join(f'[methods."{name}"]\nkind = "{name}"\nlambda_d = 0.25' for name in SMALL)
    file.write_text(
        '[dataset]\nsource = "ml-100k"\n[teacher]\nkind = "reference"\n[students.GRU.student]\nkind = "gru4rec"\n'
        + methods
    )
    config = load_config(file)
    assert [config.cell("GRU", name).method.kind for name in SMALL] == list(SMALL)

"""The nested configuration: trials, names, paths, and what does not fit together."""

from pathlib import Path
from typing import Any

import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.experiments.config import CellSettings, Config, load_config, stated
from dllm2rec.experiments.running import adapted, method_name, student_name
from dllm2rec.experiments.settings import validate
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.sasrec import SASRecSettings

TOML = """
seeds = [3, 4]
[dataset]
interactions = "data/log.csv"
items = "data/items.csv"
[teacher]
kind = "reference"
[students.SASRec.student]
kind = "sasrec"
[students.GRU.student]
kind = "gru4rec"
dim = 32
[methods.plain]
kind = "none"
[methods."paper, no text"]
kind = "dllm2rec"
embedding = false
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toys.toml"
    path.write_text(TOML.replace("paper, no text", "no text"))
    return path


def test_names_come_from_the_file_and_paths_are_relative_to_it(file: Path) -> None:
    config = load_config(file)
    assert config.name == "toys"
    assert config.dataset.interactions == file.parent / "data" / "log.csv"
    assert list(config.students) == ["SASRec", "GRU"]
    assert config.cell("GRU", "no text").student == GRU4RecSettings(dim=32)


def test_names_become_directories_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(TOML)
    with pytest.raises(UserError, match="letters, digits"):
        load_config(tmp_path / "bad.toml")


def test_trials_change_a_cell_and_leave_the_rest_open(file: Path) -> None:
    config = load_config(
        file,
        [
            "search.seed=3",
            "search.trials.plain=[{}, {training.epochs = 7}]",
            "search.trials.no text=[{method.lambda_d = 0.2}, {}]",
            "training.patience=2",
        ],
    )
    first, second = config.trials("GRU", "plain")
    assert (first.training.epochs, second.training.epochs) == (100, 7)
    assert second.training.patience == 2
    assert second.student == GRU4RecSettings(dim=32)
    assert "output" not in second.student.model_fields_set
    taught, _ = config.trials("GRU", "no text")
    assert isinstance(taught.method, DLLM2RecSettings)
    assert (taught.method.lambda_d, taught.method.embedding) == (0.2, False)


def test_every_method_gets_the_same_number_of_trials(file: Path) -> None:
    with pytest.raises(UserError, match=r"same number of trials.*plain 1, no text 0"):
        load_config(file, ["search.trials.plain=[{}]"])


def test_a_taught_method_needs_a_teacher(file: Path) -> None:
    values: dict[str, Any] = {
        "name": "x",
        "dataset": {"source": "ml-100k"},
        "students": {"S": {"student": {"kind": "sasrec"}}},
        "methods": {"m": {"kind": "dllm2rec"}},
    }
    with pytest.raises(UserError, match="method 'm' needs a teacher"):
        validate(Config, values)


def test_stated_keeps_what_was_set_by_name_and_every_kind() -> None:
    cell = CellSettings(student=SASRecSettings(dim=8), loss=DROSSettings(), method=DLLM2RecSettings(lambda_d=0.1))
    assert stated(cell) == {
        "student": {"kind": "sasrec", "dim": 8},
        "loss": {"kind": "dros"},
        "method": {"kind": "dllm2rec", "lambda_d": 0.1},
    }


def test_a_method_adapts_student_and_loss_once() -> None:
    cell = adapted(CellSettings(loss=DROSSettings(), method=DLLM2RecSettings(variant="released")))
    assert isinstance(cell.loss, DROSSettings)
    assert (cell.student.output, cell.loss.reduction) == ("separate", "mean")
    paper = adapted(CellSettings(method=DLLM2RecSettings(variant="paper")))
    assert paper.student.output == "tied"
    again = adapted(CellSettings.model_validate(paper.model_dump(mode="json")))
    assert again == paper


def test_names_say_what_is_unusual() -> None:
    assert student_name(CellSettings()) == "sasrec"
    assert student_name(CellSettings(loss=DROSSettings())) == "sasrec+dros"
    assert method_name(CellSettings()) == "plain"
    assert method_name(CellSettings(method=DLLM2RecSettings(variant="released"))) == "dllm2rec (released)"

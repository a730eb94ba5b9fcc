"""The nested configuration: trials, names, paths, and what does not fit together."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dllm2rec.core.errors import UserError
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.losses.softmax import SoftmaxSettings
from dllm2rec.settings.config import Config, TrainSettings, explicitly_set, load_config
from dllm2rec.settings.parsing import validate
from dllm2rec.settings.teacher import BigRecTeacher, KnowledgeSource, MergedTeacher, ReferenceTeacher
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.students.transformer import TransformerSettings
from dllm2rec.training.loop import FitSettings
from dllm2rec.workflow.training import adapted, method_name, student_name

TOML = """
seeds = [3, 4]
protocol = "paper"
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


def test_paths_of_knowledge_that_a_teacher_reads_are_relative_to_the_file(file: Path) -> None:
    """But not what names a model, nor what says which vectors merged knowledge has."""
    file.write_text(file.read_text().replace('kind = "reference"', 'kind = "reference"\nvectors = "known"'))
    config = load_config(file, ["teacher.model=minilm"])
    assert config.teacher == ReferenceTeacher(vectors=file.parent / "known", model="minilm")
    sources = """sources = [
        {kind = "knowledge", path = "one"}, {kind = "bigrec", llm = "tiny", vectors = "two"}]"""
    table = f'kind = "merged"\nvectors = "first"\n{sources}'
    file.write_text(TOML.replace("paper, no text", "no text").replace('kind = "reference"', table))
    config = load_config(file)
    assert config.teacher == MergedTeacher(
        sources=(KnowledgeSource(path=file.parent / "one"), BigRecTeacher(llm="tiny", vectors=file.parent / "two"))
    )


def test_names_become_directories_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(TOML)
    with pytest.raises(UserError, match="letters, digits"):
        load_config(tmp_path / "bad.toml")


def test_training_of_one_student_differs_from_that_of_the_others(file: Path) -> None:
    config = load_config(file, ["training.epochs=40", "training.patience=3", "students.GRU.training.patience=10"])
    assert (config.cell("SASRec", "plain").training.epochs, config.cell("SASRec", "plain").training.patience) == (40, 3)
    assert (config.cell("GRU", "no text").training.epochs, config.cell("GRU", "no text").training.patience) == (40, 10)


SEARCH = [
    "search.trials=3",
    "search.ranges={training.epochs = {low = 5, high = 9, whole = true}}",
    "search.methods.no text={method.lambda_d = {choices = [0.2, 0.4]}}",
]


def test_a_trial_changes_a_cell_and_leaves_the_rest_open(file: Path) -> None:
    config = load_config(file, [*SEARCH, "training.patience=2"])
    assert config.search is not None
    assert set(config.search.of("plain")) == {"training.epochs"}
    assert set(config.search.of("no text")) == {"training.epochs", "method.lambda_d"}
    cell = config.cell("GRU", "no text", {"training.epochs": 7, "method.lambda_d": 0.4})
    assert (cell.training.epochs, cell.training.patience) == (7, 2)
    assert cell.student == GRU4RecSettings(dim=32)
    assert "output" not in cell.student.model_fields_set
    assert isinstance(cell.method, DLLM2RecSettings)
    assert (cell.method.lambda_d, cell.method.embedding) == (0.4, False)
    assert config.stands("GRU", "no text", ["training.patience", "student.dim", "no.such"]) == {
        "training.patience": 2,
        "student.dim": 32,
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.methods.no texd={}", "no method 'no texd' .did you mean 'no text'"),
        ("search.ranges={}", "method 'plain' has nothing to search"),
        ("evaluation.against=plane", "no method 'plane'"),
        ("search.ranges={method.lambda = {low = 1, high = 2}}", "lambda"),
        ("search.ranges={training.epochs = {low = 0, high = 2, whole = true}}", "epochs"),
        ("search.ranges={training.epochs = {low = 3, high = 2}}", "must be below"),
        ("search.ranges={training.learning_rate = {low = 0, high = 2, log = true}}", "begins above 0"),
        ("search.ranges={training.epochs = {low = 3}}", "give either choices, or low and high"),
        ("search.trials=0", "trials"),
    ],
)
def test_searches_and_evaluations_that_can_not_be(setting: str, words: str, file: Path) -> None:
    with pytest.raises(UserError, match=words):
        load_config(file, [*SEARCH, setting])


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
    cell = TrainSettings(
        protocol="paper", student=SASRecSettings(dim=8), loss=DROSSettings(), method=DLLM2RecSettings(lambda_d=0.1)
    )
    assert explicitly_set(cell) == {
        "protocol": "paper",
        "student": {"kind": "sasrec", "dim": 8},
        "loss": {"kind": "dros"},
        "method": {"kind": "dllm2rec", "lambda_d": 0.1},
    }


def test_a_method_adapts_student_and_loss_once() -> None:
    cell = adapted(TrainSettings(protocol="paper", loss=DROSSettings(), method=DLLM2RecSettings(variant="released")))
    assert isinstance(cell.loss, DROSSettings)
    assert (cell.student.output, cell.loss.reduction) == ("separate", "mean")
    paper = adapted(TrainSettings(protocol="paper", method=DLLM2RecSettings(variant="paper")))
    assert paper.student.output == "tied"
    again = adapted(TrainSettings.model_validate(paper.model_dump(mode="json")))
    assert again == paper


def test_the_released_variant_has_an_output_layer_of_its_own_or_is_refused() -> None:
    released = DLLM2RecSettings(variant="released")
    with pytest.raises(ValidationError, match=r"student\.output to 'separate', or protocol to 'paper'"):
        TrainSettings(method=released)
    TrainSettings(method=DLLM2RecSettings(variant="released", embedding=False))
    separate = TrainSettings.model_validate({"student": {"output": "separate"}, "method": released})
    assert adapted(separate).student.output == "separate"
    assert adapted(TrainSettings(method=DLLM2RecSettings(variant="released", sides="both"))).student.output == "tied"


def test_names_say_what_is_unusual() -> None:
    assert student_name(TrainSettings(protocol="paper")) == "sasrec"
    assert student_name(TrainSettings(protocol="paper", loss=DROSSettings())) == "sasrec+dros"
    assert student_name(TrainSettings()) == "transformer"
    strong = TrainSettings.model_validate({"student": {"kind": "sasrec"}})
    assert student_name(strong) == "sasrec (strong)"
    assert method_name(TrainSettings()) == "plain"
    assert (
        method_name(TrainSettings(protocol="paper", method=DLLM2RecSettings(variant="released")))
        == "dllm2rec (released)"
    )


def test_paths_on_the_command_line_are_relative_to_where_one_stands(file: Path) -> None:
    config = load_config(file, ["dataset.interactions=mine/log.csv", "teacher.vectors=known"])
    assert config.dataset.interactions == Path("mine/log.csv")
    assert config.dataset.items == file.parent / "data" / "items.csv"
    assert config.teacher == ReferenceTeacher(vectors=Path("known"))


def test_a_protocol_fills_what_objects_leave_open_as_it_does_for_tables() -> None:
    objects = TrainSettings(
        student=TransformerSettings(dim=64),
        loss=SoftmaxSettings(),
        training=FitSettings(epochs=4),
    )
    tables = {"student": {"kind": "transformer", "dim": 64}, "loss": {"kind": "softmax"}, "training": {"epochs": 4}}
    assert objects == TrainSettings.model_validate(tables)
    assert (objects.training.optimizer, objects.student.output, objects.student.dim) == ("adamw", "tied", 64)
    assert TrainSettings(loss=DROSSettings()).loss == DROSSettings()


def test_kars_experts_read_items_and_users_on_one_scale() -> None:
    cell = {"train_on": "examples", "method": {"kind": "kar"}}
    assert TrainSettings.model_validate(cell).student.vector_scaling == "unit"
    assert adapted(TrainSettings.model_validate(cell)).student.vector_scaling == "standardise"

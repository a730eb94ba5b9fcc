"""The settings of an experiment: one nested model, read from TOML. The only place where settings of rooms nest."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from dllm2rec.core.errors import suggest
from dllm2rec.data import TrainOn
from dllm2rec.distillation.methods import BaselineSettings
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.distillation.soft_labels import SoftLabelSettings
from dllm2rec.experiments.dataset_settings import DatasetSettings, Strict
from dllm2rec.experiments.protocol import Protocol, fill
from dllm2rec.experiments.settings import override, read_toml, validate
from dllm2rec.losses.bce import BCESettings
from dllm2rec.losses.factory import LossSettings
from dllm2rec.students.factory import StudentSettings
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.training import FitSettings


class NoMethod(Strict):
    """The plain student: no teacher."""

    kind: Literal["none"] = "none"


class VectorsMethod(Strict):
    """The student reads the teacher's item vectors; none of the teacher's rankings are distilled."""

    kind: Literal["vectors"] = "vectors"


MethodSettings = Annotated[
    NoMethod | VectorsMethod | SoftLabelSettings | DLLM2RecSettings | BaselineSettings, Field(discriminator="kind")
]


def _speakable(name: str) -> str:
    if not re.fullmatch(r"[\w.+()-][\w.+() -]*", name):
        raise ValueError(f"'{name}' must be made of letters, digits, spaces and . + - ( )")
    return name


Name = Annotated[str, AfterValidator(_speakable)]


class CellSettings(Strict):
    """One training: what is trained, on what, on which loss, taught by what, and how long.

    Attributes:
        protocol: what is left open is as in the `paper`, or as in the `strong` protocol; see `protocol.py`.
        train_on: see `Dataset.training_examples`.
        student: see `StudentSettings`.
        loss: see `LossSettings`.
        method: how a teacher takes part.
        training: see `FitSettings`.
    """

    protocol: Protocol = "paper"
    train_on: TrainOn = "examples"
    student: StudentSettings = SASRecSettings()
    loss: LossSettings = BCESettings()
    method: MethodSettings = NoMethod()
    training: FitSettings = FitSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_protocol(cls, values: Any) -> Any:
        return fill(values) if isinstance(values, Mapping) else values


class StudentEntry(Strict):
    """A student and its loss.

    Attributes:
        protocol: where it differs from that of the experiment.
        student: see `StudentSettings`.
        loss: see `LossSettings`.
    """

    protocol: Protocol | None = None
    student: StudentSettings
    loss: LossSettings = BCESettings()


class Search(Strict):
    """A small search: for each student and method the trial with the best validation NDCG@20 is trained for all seeds.

    Attributes:
        seed: that all trials are trained with.
        trials: for each method by name, changes to the cell, such as ``{training = {weight_decay = 1e-4}}``. Every
            method has the same number of trials, so that none is tuned harder than another.
    """

    seed: int = 0
    trials: dict[Name, tuple[dict[str, Any], ...]]


class EvaluationSettings(Strict):
    """How results are measured.

    Attributes:
        mask_history: leave the items of a history out of its ranking; the paper does not.
        seed: of the permutation tests and bootstrap intervals.
    """

    mask_history: bool = False
    seed: int = 0


class Config(Strict):
    """An experiment: every student with every method and every seed, on one dataset with one teacher.

    Attributes:
        name: names the directory of the runs and the report.
        dataset: see `DatasetSettings`.
        teacher: a table, see `TeacherSettings`; none if all methods are plain. `resolve_teacher` checks it, which
            needs the libraries of a language model: an experiment whose teacher is finished does without them.
        students: by the name that tables show.
        methods: by the name that tables show.
        seeds: each cell is trained with each.
        protocol: of every cell.
        train_on: of every cell; None leaves it to the protocol.
        training: of every cell.
        search: validation-only choice among trials; none trains the cells as they stand.
        evaluation: see `EvaluationSettings`.
    """

    name: Name
    dataset: DatasetSettings
    teacher: dict[str, Any] | None = None
    students: Annotated[dict[Name, StudentEntry], Field(min_length=1)]
    methods: Annotated[dict[Name, MethodSettings], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    protocol: Protocol = "paper"
    train_on: TrainOn | None = None
    training: FitSettings = FitSettings()
    search: Search | None = None
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        taught = [name for name, method in self.methods.items() if not isinstance(method, NoMethod)]
        if taught and self.teacher is None:
            raise ValueError(f"method '{taught[0]}' needs a teacher; add a [teacher] table")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed occurs twice")
        if self.search is not None:
            _check_trials(self.search, self.methods)
        return self

    def cell(self, student: str, method: str) -> CellSettings:
        """Return the settings of one cell, before any search."""
        entry = self.students[student]
        values: dict[str, Any] = {
            **stated(entry),
            "protocol": entry.protocol or self.protocol,
            "method": self.methods[method],
            "training": stated(self.training),
        }
        if self.train_on is not None:
            values["train_on"] = self.train_on
        return CellSettings.model_validate(values)

    def trials(self, student: str, method: str) -> list[CellSettings]:
        """Return the settings that a search tries for a cell, in order.

        Raises:
            UserError: a trial sets what the cell does not have.
        """
        cell = self.cell(student, method)
        changes = self.search.trials[method] if self.search else ()
        base = stated(cell)
        where = "search.trials.{}.{} with student '{}'"
        return [
            validate(CellSettings, _merge(base, change), source=where.format(method, index, student))
            for index, change in enumerate(changes)
        ]


def load_config(path: Path, settings: Iterable[str] = ()) -> Config:
    """Read an experiment from TOML; paths in it are relative to its folder.

    Args:
        path: the file.
        settings: ``a.b=value`` that override what the file says.

    Raises:
        UserError: the file or a setting is wrong; one line names what and where.
    """
    values = override(read_toml(path), settings)
    values.setdefault("name", path.stem)
    config = validate(Config, _anchor(values, path.parent), source=str(path))
    for student in config.students:
        for method in config.methods:
            config.trials(student, method)
    return config


def stated(settings: BaseModel) -> dict[str, Any]:
    """Return what was set by name, and every `kind`: what is left out stays open for a method to decide."""
    names = settings.model_fields_set | ({"kind"} & type(settings).model_fields.keys())
    values = {name: getattr(settings, name) for name in type(settings).model_fields if name in names}
    return {name: stated(value) if isinstance(value, BaseModel) else value for name, value in values.items()}


def _check_trials(search: Search, methods: Mapping[str, Any]) -> None:
    unknown = [name for name in search.trials if name not in methods]
    if unknown:
        raise ValueError(f"search.trials: no method '{unknown[0]}'{suggest(unknown[0], methods)}")
    counts = {name: len(search.trials.get(name, ())) for name in methods}
    if len(set(counts.values())) > 1 or not min(counts.values()):
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"search.trials: each method needs the same number of trials, at least one (found: {found})")


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        inside = merged.get(name)
        merged[name] = _merge(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
    return merged


def _anchor(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of the log relative to the folder of the TOML file."""
    dataset = values.get("dataset")
    if not isinstance(dataset, Mapping):
        return dict(values)
    paths = {name: folder / dataset[name] for name in ("interactions", "items") if isinstance(dataset.get(name), str)}
    return {**values, "dataset": {**dataset, **paths}}

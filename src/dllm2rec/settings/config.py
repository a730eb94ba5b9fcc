"""The settings of an experiment: one nested model, read from TOML. The only place where settings of packages nest."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, model_validator

from dllm2rec.core.errors import UserError, suggest
from dllm2rec.core.settings import Settings
from dllm2rec.data import TrainOn
from dllm2rec.distillation.methods import MethodSettings, NoMethod
from dllm2rec.distillation.settings import DLLM2RecSettings, reads_vectors
from dllm2rec.distillation.soft_labels import SoftLabelSettings
from dllm2rec.losses.bce import BCESettings
from dllm2rec.losses.factory import LossSettings
from dllm2rec.losses.softmax import SoftmaxSettings
from dllm2rec.settings.dataset import DatasetSettings
from dllm2rec.settings.parsing import Name, override, read_toml, validate
from dllm2rec.settings.protocol import DEFAULT, Protocol, explicitly_set, fill
from dllm2rec.settings.search import Search, check_search, nested
from dllm2rec.settings.teacher import MergedTeacher, TeacherChoice
from dllm2rec.students.factory import StudentSettings
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.teachers.merging import MERGED
from dllm2rec.training import FitSettings

FollowDemand = Literal["none", "validation"]


RESOLVED = "resolved"
"""Context of validation for settings that were written in full: a setting that they lack did not exist yet."""


class TrainSettings(Settings):
    """Settings of one training run: student, loss, distillation method, examples and optimisation.

    Whatever is not set by name gets its default from the protocol, within `student`, `loss` and `training`, too: with
    ``student=SASRecSettings()`` the strong protocol trains a SASRec of 128 dimensions with dropout 0.2, and not the
    paper's, which `SASRecSettings()` by itself shows. The fields of the result have what will be trained.

    Attributes:
        protocol: gives the defaults: `paper`, what Cui et al. did, or `strong`, our recipe.
        train_on: the training examples: those of the split (`examples`), every position of the sequences that these end
            (`positions`), or every position before the split date, of all users (`before-cut`).
        student: the model.
        loss: the recommendation loss.
        method: the distillation method.
        training: see `FitSettings`.
        demand: whether `validation` chooses, after training, how far scores follow the newest demand.
    """

    protocol: Protocol = DEFAULT
    train_on: TrainOn = "examples"
    student: StudentSettings = SASRecSettings()
    loss: LossSettings = BCESettings()
    method: MethodSettings = NoMethod()
    training: FitSettings = FitSettings()
    demand: FollowDemand = "none"

    @model_validator(mode="before")
    @classmethod
    def _fill_from_protocol(cls, values: Any, info: ValidationInfo) -> Any:
        return fill(values) if isinstance(values, Mapping) and info.context != RESOLVED else values

    @model_validator(mode="after")
    def _released_is_released(self) -> Self:
        method = self.method
        if not isinstance(method, DLLM2RecSettings) or method.variant != "released" or not reads_vectors(method):
            return self
        if method.sides is None and self.protocol == "strong" and self.student.output == "tied":
            raise ValueError(
                "method.variant 'released' has an output layer of its own; set student.output to 'separate', "
                "or protocol to 'paper'"
            )
        return self


class StudentEntry(Settings):
    """A student and its loss.

    Attributes:
        protocol: where it differs from that of the experiment.
        student: see `StudentSettings`.
        loss: see `LossSettings`.
        training: where it differs from that of the experiment; the same for all methods.
    """

    protocol: Protocol | None = None
    student: StudentSettings
    loss: LossSettings = BCESettings()
    training: FitSettings = FitSettings()


class EvaluationSettings(Settings):
    """How results are measured.

    Attributes:
        mask_history: leave the items of a history out of its ranking; the paper does not.
        seed: of the permutation tests.
        against: name of the method that all others are tested against; by default taught students are tested against
            plain ones.
    """

    mask_history: bool = False
    seed: int = 0
    against: str | None = None


class Config(Settings):
    """An experiment: every student with every method and every seed, on one dataset with one teacher.

    Attributes:
        name: names the directory of the runs and the report.
        dataset: see `DatasetSettings`.
        teacher: see `TeacherChoice`; none if all methods are plain.
        students: by the name that tables show.
        methods: by the name that tables show.
        learns_from: by the name of a method, which source of a merged teacher it learns from, 1 for the first; the
            others learn from all.
        seeds: each cell is trained with each.
        protocol: of every cell.
        train_on: of every cell; None leaves it to the protocol.
        demand: of every cell, the same.
        training: of every cell.
        search: validation-only choice among trials; none trains the cells as they stand.
        evaluation: see `EvaluationSettings`.
    """

    name: Name
    dataset: DatasetSettings
    teacher: TeacherChoice | None = None
    students: Annotated[dict[Name, StudentEntry], Field(min_length=1)]
    methods: Annotated[dict[Name, MethodSettings], Field(min_length=1)]
    learns_from: dict[Name, PositiveInt] = Field(default={})
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (1,)
    protocol: Protocol = DEFAULT
    train_on: TrainOn | None = None
    demand: FollowDemand | None = None
    training: FitSettings = FitSettings()
    search: Search | None = None
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        against = self.evaluation.against
        if against is not None and against not in self.methods:
            raise ValueError(f"evaluation.against: no method '{against}'{suggest(against, self.methods)}")
        taught = [name for name, method in self.methods.items() if not isinstance(method, NoMethod)]
        if taught and self.teacher is None:
            raise ValueError(f"method '{taught[0]}' needs a teacher; add a [teacher] table")
        _check_sources(self.learns_from, taught, self.teacher)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed occurs twice")
        if self.search is not None:
            check_search(self.search, self.methods)
        return self

    def cell(self, student: str, method: str, change: Mapping[str, Any] | None = None) -> TrainSettings:
        """Return the settings of one cell.

        Args:
            student: its name.
            method: its name.
            change: settings that a search proposes, by dotted name.

        Raises:
            UserError: a change sets what the cell does not have.
        """
        entry = self.students[student]
        values: dict[str, Any] = {
            **explicitly_set(entry),
            "protocol": entry.protocol or self.protocol,
            "method": self.methods[method],
            "training": explicitly_set(self.training) | explicitly_set(entry.training),
        }
        if self.train_on is not None:
            values["train_on"] = self.train_on
        if self.demand is not None:
            values["demand"] = self.demand
        cell = validate(TrainSettings, values, source=f"student '{student}', method '{method}'")
        if not change:
            return cell
        where = f"search: student '{student}', method '{method}'"
        return validate(TrainSettings, _merge(explicitly_set(cell), nested(change)), source=where)

    def stands(self, student: str, method: str, names: Iterable[str]) -> dict[str, Any]:
        """Return what the cell sets by dotted names, before any search; names that it does not have are left out."""
        values = self.cell(student, method).model_dump(mode="json")
        found = {}
        for name in names:
            inside: Any = values
            for part in name.split("."):
                inside = inside.get(part) if isinstance(inside, Mapping) else None
            if inside is not None:
                found[name] = inside
        return found


def load_config(path: Path, settings: Iterable[str] = ()) -> Config:
    """Read an experiment from TOML; paths of logs and of knowledge in it are relative to its folder.

    What names a model (`llm`, `model`) stays as it is: it may be a directory, but also a short name or one on the hub.

    Args:
        path: the file.
        settings: ``a.b=value`` that override what the file says; a path among them is relative to where one stands.

    Raises:
        UserError: the file or a setting is wrong; one line names what and where.
    """
    values = override(_anchor(read_toml(path), path.parent), settings)
    values.setdefault("name", path.stem)
    config = validate(Config, values, source=str(path))
    for student in config.students:
        for method in config.methods:
            if config.search is None or "loss.kind" not in config.search.of(method):
                _require_a_softmax_to_share(config.cell(student, method), f"student '{student}', method '{method}'")
            _try_ranges(config, student, method)
    return config


def _check_sources(learns_from: Mapping[str, int], taught: Sequence[str], teacher: TeacherChoice | None) -> None:
    if not learns_from:
        return
    if not isinstance(teacher, MergedTeacher):
        raise ValueError(
            "learns_from needs a teacher of kind 'merged', with a [[teacher.sources]] table for each source"
        )
    for name, number in learns_from.items():
        if name not in taught:
            raise ValueError(f"learns_from: no method '{name}' that a teacher teaches{suggest(name, taught)}")
        if number > len(teacher.sources):
            raise ValueError(f"learns_from.{name}: there is no source {number}, the teacher has {len(teacher.sources)}")


def _try_ranges(config: Config, student: str, method: str) -> None:
    """Build the cell with every value that stands for a range, so that a search fails before it begins."""
    for name, span in (config.search.of(method) if config.search else {}).items():
        for value in span.samples():
            cell = config.cell(student, method, {name: value})
            if name == "loss.kind":
                _require_a_softmax_to_share(cell, f"search: student '{student}', method '{method}'")


def _require_a_softmax_to_share(cell: TrainSettings, where: str) -> None:
    if isinstance(cell.method, SoftLabelSettings) and not isinstance(cell.loss, SoftmaxSettings):
        raise UserError(
            f"{where}: method soft-labels shares out one softmax; set loss.kind = 'softmax' in the student's table"
        )


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        inside = merged.get(name)
        merged[name] = _merge(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
    return merged


def _anchor(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of the log, and of knowledge that a teacher reads, relative to the folder of the TOML file."""
    anchored = dict(values)
    dataset, teacher = values.get("dataset"), values.get("teacher")
    if isinstance(dataset, Mapping):
        anchored["dataset"] = _anchor_names(dataset, ("interactions", "items"), folder)
    if isinstance(teacher, Mapping):
        anchored["teacher"] = _anchor_teacher(teacher, folder)
    return anchored


def _anchor_teacher(teacher: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if teacher.get("kind") != MERGED:  # whose `vectors` are no path
        return _anchor_names(teacher, ("path", "vectors"), folder)
    sources = teacher.get("sources")
    if not isinstance(sources, list):
        return dict(teacher)
    anchored = [_anchor_teacher(source, folder) if isinstance(source, Mapping) else source for source in sources]
    return {**teacher, "sources": anchored}


def _anchor_names(table: Mapping[str, Any], names: Iterable[str], folder: Path) -> dict[str, Any]:
    return {**table, **{name: str(folder / table[name]) for name in names if isinstance(table.get(name), str)}}

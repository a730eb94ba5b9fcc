"""The run directory: resolved settings with their hash, checkpoints, metrics an epoch, ranks an example, the result."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from dllm2rec.core.errors import UserError, first_problem
from dllm2rec.core.files import exclusive, hash_json, read_json, require_fresh_directory, write_json
from dllm2rec.core.settings import Settings, differences
from dllm2rec.data import Split
from dllm2rec.data.directory import MARKER as DATASET
from dllm2rec.distillation.methods import NoMethod
from dllm2rec.evaluation.demand import DemandWeights
from dllm2rec.evaluation.ranks import Ranks
from dllm2rec.knowledge.schema import MARKER as KNOWLEDGE
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import RESOLVED, TrainSettings
from dllm2rec.workflow.rank_files import read_ranks, write_ranks

MARKER = "config.json"
EXPERIMENT, CONCLUSION = "experiment.json", "conclusion.json"
"""In a directory above those of its runs: what it is asked for, and which of the runs its last tables are of."""
RESULT = "result.json"
REVISION = 2
"""Raised with every change of the code by which the same settings come to other weights or other weights of demand, so
that no table takes runs from before and after for seeds of one student."""
Model = TypeVar("Model", bound=Settings)
_SOFTWARE = ("dllm2rec", "torch", "numpy", "polars", "scipy", "transformers", "peft", "trl")


class Source(Settings):
    """A dataset or knowledge that a run was made from.

    Attributes:
        path: where it lay.
        hash: of its content.
        name: for people.
        read: of knowledge, hash of the item vectors and texts that a trained student still needs, see
            `Knowledge.read_hash`.
    """

    path: Path
    hash: str
    name: str
    read: str | None = None


class RunConfig(Settings):
    """What `config.json` says.

    Attributes:
        format_version: of the directory.
        hash: of settings, seed, dataset, knowledge and revision; but for other versions of libraries and other
            processors, equal hashes mean equal results.
        student: name for tables.
        method: name for tables.
        seed: of the initial weights and of training.
        settings: resolved; student and loss are as the method made them.
        dataset: that it was trained on.
        knowledge: that taught it.
        continues: the run that an update went on from; its hash is that run's.
        family: what that run shares with those of other seeds, see `family`.
        replay: examples that it had learned from which the update learned again, for each new one.
        revision: of the code that trained it, see `REVISION`.
        software: versions.
    """

    format_version: Literal[1] = 1
    hash: str
    student: str
    method: str
    seed: int
    settings: TrainSettings
    dataset: Source
    knowledge: Source | None
    continues: Source | None = None
    family: str | None = None
    replay: float | None = None
    revision: int = 1
    software: dict[str, str]

    @property
    def label(self) -> str:
        """Name of the row in tables."""
        return f"{self.student} {'+ ' if self.distilled else ''}{self.method}"

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part."""
        return not isinstance(self.settings.method, NoMethod)


class FitSummary(Settings):
    """How training went.

    Attributes:
        best_epoch: whose weights the student has now, from 1.
        epochs_run: epochs that were trained.
        seconds: that they took, validation included.
        examples_per_second: training examples a second, validation excluded.
        validation: of the best epoch, and with the demand that was chosen.
        labelled: training examples that had a label.
        demand: what validation chose after training; None where it was not asked.
        again: what the items of a history get on top of their scores.
        ever: whether they get it however long ago they were chosen.
    """

    best_epoch: int
    epochs_run: int
    seconds: float
    examples_per_second: float
    validation: dict[str, float]
    labelled: int
    demand: DemandWeights | None = None
    again: float = 0.0
    ever: bool = False


class Evaluation(Settings):
    """How one split was answered.

    Attributes:
        mask_history: whether items of the history were left out.
        examples: how many.
        metrics: means over the examples.
        seconds_per_1000: for 1,000 users, from history to list.
    """

    mask_history: bool
    examples: int
    metrics: dict[str, float]
    seconds_per_1000: float


class RunResult(Settings):
    """What `result.json` says: `fit` once training has ended, and an evaluation for each split asked for.

    With the items of histories left out it is one of its own, see `evaluation_name`.
    """

    fit: FitSummary
    evaluation: dict[str, Evaluation] = Field(default_factory=dict)

    def evaluated(self, split: Split, *, mask_history: bool = False) -> Evaluation | None:
        """Return how a split was answered; None where it was not yet."""
        return self.evaluation.get(evaluation_name(split, mask_history=mask_history))


def evaluation_name(split: Split, *, mask_history: bool) -> str:
    """Name an evaluation, in `result.json` and of the file of its ranks."""
    return f"{split}-masked" if mask_history else split


@dataclass(frozen=True)
class Run:
    """A run directory, opened.

    Attributes:
        path: the directory.
        config: what `config.json` says.
    """

    path: Path
    config: RunConfig

    @classmethod
    def load(cls, path: Path | str) -> "Run":
        """Open a run directory.

        Raises:
            UserError: it is not one, or of another version.
        """
        path = Path(path)
        if not (path / MARKER).is_file():
            raise UserError(f"{path}: not a run directory (no {MARKER} in it); make one with `dllm2rec train`")
        return cls(path, _parse(RunConfig, path / MARKER))

    @classmethod
    def at(cls, path: Path, config: RunConfig) -> "Run":
        """Return the run at ``path``, which is there already or may begin there; nothing is written.

        Raises:
            UserError: something else is there, or a run with other settings (those that differ are named).
        """
        require_fresh_directory(path, marker=MARKER)
        if not (path / MARKER).exists():
            return cls(path, config)
        there = cls.load(path)
        different = differences(identity(there.config), identity(config))
        if different:
            raise UserError(f"{path}: holds another run ({different}); choose another --out or remove it")
        return cls(path, there.config.model_copy(update={"student": config.student, "method": config.method}))

    def begin(self) -> None:
        """Write `config.json`, if it is not there, or has other names for student and method."""
        if not (self.path / MARKER).exists() or Run.load(self.path).config.label != self.config.label:
            write_json(self.path / MARKER, self.config.model_dump(mode="json"))

    @property
    def result(self) -> RunResult | None:
        """What came out; None before training has ended."""
        return _parse(RunResult, self.path / RESULT) if (self.path / RESULT).is_file() else None

    def finished(self) -> RunResult:
        """Return what came out.

        Raises:
            UserError: training has not ended.
        """
        result = self.result
        if result is None:
            verb = "train" if self.config.continues is None else "update"
            raise UserError(f"{self.path}: training has not ended; run the same `dllm2rec {verb}` again, it goes on")
        return result

    def write_result(self, result: RunResult) -> None:
        """Write `result.json`."""
        write_json(self.path / RESULT, result.model_dump(mode="json"))

    def add_evaluation(self, evaluation: Evaluation, split: Split) -> None:
        """Add to `result.json`, whatever others add at the same time."""
        name = evaluation_name(split, mask_history=evaluation.mask_history)
        with exclusive(self.path / RESULT, wait=True):
            result = self.finished()
            self.write_result(result.model_copy(update={"evaluation": result.evaluation | {name: evaluation}}))

    def find(self, source: Source) -> Path:
        """Return where a source is now: within the run, or where it lay, or where it is if it was moved with the run.

        What an update made lies within its run and nowhere else, though another may lie by now where the run was once.
        Where several places hold something, the one whose content is the run's is taken.
        """
        path = self.path.resolve()
        own, *beside = (folder / source.path.name for folder in (path, *path.parents[:3]))
        places = [place for place in dict.fromkeys((own, source.path, *beside)) if _is_source(place)]
        if len(places) > 1:
            return next((place for place in places if _holds(place, source)), places[0])
        return places[0] if places else source.path

    def locate(self, what: Literal["dataset", "knowledge"], source: Source, *, option: str = "") -> Path:
        """Return where a source is now, see `find`.

        Args:
            what: it is.
            source: the run's.
            option: how a user says where it is now, where the verb has a way: what comes before the path.

        Raises:
            UserError: it is gone.
        """
        place = self.find(source)
        if not _is_source(place):
            beside = self.path.resolve().parent / source.path.name
            ways = ["put it back"]
            ways += [f"move it next to the run, as {beside}"] if beside != source.path else []
            ways += [f"say where it is: {option} {what.upper()}"] if option else []
            raise UserError(f"{self.path}: its {what} lay in {source.path} and is not there; {', or '.join(ways)}")
        return place

    def has_ranks(self, split: Split, *, mask_history: bool = False) -> bool:
        """Whether the examples of a split were ranked."""
        return self._ranks_file(split, mask_history).is_file()

    def write_ranks(self, split: Split, ranks: Ranks, *, mask_history: bool = False) -> None:
        """Write a row an example: its id, the rank of its target, the best items."""
        write_ranks(self._ranks_file(split, mask_history), ranks)

    def read_ranks(self, split: Split, *, mask_history: bool = False) -> Ranks:
        """Read what `write_ranks` wrote.

        Raises:
            UserError: it is missing or damaged.
        """
        return read_ranks(self._ranks_file(split, mask_history))

    def _ranks_file(self, split: Split, mask_history: bool) -> Path:
        return self.path / f"ranks-{evaluation_name(split, mask_history=mask_history)}.parquet"


def make_config(
    *,
    student: str,
    method: str,
    seed: int,
    settings: TrainSettings,
    dataset: Source,
    knowledge: Source | None,
    continues: Run | None = None,
    replay: float | None = None,
) -> RunConfig:
    """Fill in the hash and the versions."""
    origin = None
    if continues is not None:
        known = continues.config
        origin = Source(path=continues.path.resolve(), hash=known.hash, name=known.label)
    config = RunConfig(
        hash="",
        student=student,
        method=method,
        seed=seed,
        settings=settings,
        dataset=dataset,
        knowledge=knowledge,
        continues=origin,
        family=None if continues is None else family(continues.config),
        replay=replay,
        revision=REVISION,
        software=software(),
    )
    return config.model_copy(update={"hash": hash_json(identity(config))})


def identity(config: RunConfig) -> dict[str, Any]:
    """Return what the weights depend on."""
    continued = {}
    if config.continues is not None:
        continued = {"continues": config.continues.hash, "replay": config.replay}
    return {
        **continued,
        "seed": config.seed,
        "revision": config.revision,
        "dataset": config.dataset.hash,
        "knowledge": config.knowledge.hash if config.knowledge else None,
        **config.settings.model_dump(mode="json"),
    }


def family(config: RunConfig) -> str:
    """Hash what a run shares with those that differ in nothing but the seed."""
    return hash_json(identity(config) | {"seed": None, "continues": config.family})


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on."""
    versions = {"python": platform.python_version()}
    for package in _SOFTWARE:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _is_source(path: Path) -> bool:
    return any((path / marker).is_file() for marker in (DATASET, KNOWLEDGE))


def is_source(knowledge: Knowledge, source: Source) -> bool:
    """Say whether knowledge is what taught a run, or that with labels added."""
    return source.hash == knowledge.content_hash or source.read == knowledge.read_hash


def _holds(place: Path, source: Source) -> bool:
    """Say whether the dataset or knowledge in a place is a run's; what is damaged is none."""
    try:
        if (place / DATASET).is_file():
            return bool(read_json(place / DATASET).get("content_hash") == source.hash)
        return is_source(Knowledge.load(place), source)
    except UserError:
        return False


def _parse(model: type[Model], file: Path) -> Model:
    try:
        return model.model_validate(read_json(file), context=RESOLVED)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}; it is of another version or damaged, train again") from None

"""From directories of runs to what the tables are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dllm2rec.comparison.comparing import tabulate
from dllm2rec.comparison.evidence import Evidence, Group, gather
from dllm2rec.comparison.results import Comparison
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import read_json
from dllm2rec.data import Split
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.evaluation.metrics import METRIC
from dllm2rec.reporting.paper.published import dataset_of
from dllm2rec.workflow.runs import CONCLUSION, EXPERIMENT, MARKER, RESULT, Run, family

METHODS = {
    "none": "none",
    "hint": "Hint",
    "htd": "HTD",
    "rd": "RD",
    "cd": "CD",
    "rrd": "RRD",
    "dcd": "DCD",
    "unkd": "UnKD",
    "kar": "KAR",
    "llm-cf": "LLM-CF",
    "dllm2rec": "DLLM2Rec",
}
STUDENTS = {("gru4rec", "bce"): "GRU4Rec", ("sasrec", "bce"): "SASRec", ("sasrec", "dros"): "DROS"}
TUNED = ("lambda_d", "gamma_position", "gamma_confidence", "gamma_consistency")


@dataclass(frozen=True, kw_only=True)
class Results:
    """All cells of one dataset.

    Attributes:
        path: where they lie.
        evidence: their ranks.
    """

    path: Path
    evidence: Evidence

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.evidence.dataset.manifest.name

    @property
    def published_dataset(self) -> str | None:
        """The paper's name of it, or None."""
        return dataset_of(self.dataset, self.evidence.dataset.num_items)

    @cached_property
    def comparison(self) -> Comparison:
        """Its tables, with tests."""
        return tabulate(self.evidence)

    @cached_property
    def students(self) -> list[str]:
        """Names of the students, in order."""
        return list(dict.fromkeys(group.student for group in self.evidence.groups))

    def plain(self, student: str) -> Group | None:
        """The student without a teacher."""
        return next((one for one in self.of(student) if not one.distilled), None)

    def full(self, student: str) -> list[Group]:
        """The student with all of DLLM2Rec: each variant that was run.

        Of cells that differ in the weights alone, the one with most seeds, then the one that most others differ from in
        one setting only, which an ablation is about, then the one with the best validation NDCG@20.
        """
        variants: list[list[Group]] = []
        for one in self.of(student):
            if not is_full(one):
                continue
            same = (variant for variant in variants if differences(one, variant[0]).keys() <= set(TUNED))
            variant = next(same, None)
            if variant is None:
                variants.append([one])
            else:
                variant.append(one)
        return [max(variant, key=self._standing) for variant in variants]

    def _standing(self, group: Group) -> tuple[int, int, float]:
        seeds, validation = _weight(group.runs)
        taught = [one for one in self.of(group.student) if of_dllm2rec(one)]
        return seeds, sum(len(differences(one, group)) == 1 for one in taught), validation

    def method(self, group: Group) -> str:
        """The name of a method as table 5 writes it; of a variant or a part of DLLM2Rec its own name."""
        config = group.runs[0].config
        match config.settings.method:
            case DLLM2RecSettings() as method if method.variant != "paper" or group not in self.full(group.student):
                return config.method
            case method:
                return METHODS.get(method.kind, config.method)

    def of(self, student: str) -> list[Group]:
        """All cells of a student."""
        return [one for one in self.evidence.groups if one.student == student]


def load_results(paths: Sequence[Path], *, split: Split = "test") -> list[Results]:
    """Read the finished runs under each path.

    Of an experiment those that its last tables are made of count; of several in one directory, those of each. Of
    several settings of one cell, the one with most seeds counts, then the one with the best mean validation NDCG@20.

    Raises:
        UserError: there is no finished run under a path, an experiment there has not ended, its runs are of different
            datasets, or two paths have one.
    """
    chosen = [_chosen(path) for path in paths]
    hashes = [runs[0].config.dataset.hash for runs in chosen]
    for place, name in enumerate(hashes):
        if name in hashes[:place]:
            raise UserError(
                f"{paths[place]}: is of the same dataset as {paths[hashes.index(name)]}; give the directory above both"
            )
    return [Results(path=path, evidence=gather(runs, split=split)) for path, runs in zip(paths, chosen, strict=True)]


def published_student(group: Group) -> str | None:
    """Return the paper's name of a student, or None where the paper has none such."""
    settings = group.runs[0].config.settings
    if settings.protocol != "paper":
        return None
    return STUDENTS.get((settings.student.kind, settings.loss.kind))


def of_dllm2rec(group: Group) -> bool:
    """Whether a cell is DLLM2Rec, with whatever parts."""
    return isinstance(group.runs[0].config.settings.method, DLLM2RecSettings)


def is_full(group: Group) -> bool:
    """Whether a cell is DLLM2Rec with all its parts."""
    settings = group.runs[0].config.settings
    match settings.method:
        case DLLM2RecSettings() as method:
            return (
                all(getattr(method, name) > 0 for name in TUNED)
                and method.embedding is True
                and settings.student.offset
                and method.top_k == DLLM2RecSettings().top_k
                and method.beta == DLLM2RecSettings().beta
            )
        case _:
            return False


def differences(group: Group, base: Group) -> dict[str, tuple[object, object]]:
    """Name the settings of two cells with DLLM2Rec that differ, with both values."""
    other = _described(base)
    return {name: (value, other.get(name)) for name, value in _described(group).items() if other.get(name) != value}


def _described(group: Group) -> dict[str, object]:
    settings = group.runs[0].config.settings
    assert isinstance(settings.method, DLLM2RecSettings)  # noqa: S101 - asked of such cells only
    method = settings.method.model_dump(mode="json") | decide(settings.method).model_dump(mode="json")
    rest = settings.model_dump(mode="json")
    rest.pop("method")
    rest["student"].pop("output")  # follows from the method, and so does what "projection" leaves out
    if settings.method.embedding == "projection":
        rest["student"].pop("offset")
    rest["loss"].pop("reduction", None)
    return {
        **method,
        **{name: rest[name] for name in ("protocol", "train_on", "demand")},
        **{f"{part}.{key}": value for part in ("student", "loss", "training") for key, value in rest[part].items()},
    }


def _chosen(path: Path) -> list[Run]:
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; give one that `dllm2rec run` wrote, or that holds runs")
    found = [file.parent for file in sorted(path.rglob(RESULT)) if (file.parent / MARKER).is_file()]
    runs = [Run.load(place) for place in found if _counts(place)]
    if not runs:
        raise UserError(f"{path}: holds no finished run; make some with `dllm2rec run` or `dllm2rec train`")
    hashes = {run.config.dataset.hash: run for run in runs}
    if len(hashes) > 1:
        first, second, *_ = hashes.values()
        updated = next((run for run in runs if run.config.continues is not None), None)
        reason = "" if updated is None else f"; {updated.path.name} is an update, whose dataset has later events, too"
        raise UserError(
            f"{path}: runs of different datasets or splits ({first.path.name} and {second.path.name}) make no table"
            f"{reason}; give each dataset a directory of its own"
        )
    cells: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        cells.setdefault((run.config.student, run.config.method), {}).setdefault(family(run.config), []).append(run)
    return [run for settings in cells.values() for run in max(settings.values(), key=_weight)]


def _counts(run: Path) -> bool:
    """Say whether a run is one of those that the tables of the experiment around it are made of, where there is one.

    Others in its directory served to choose settings, or are of settings that it had before.
    """
    out = run.parent.parent
    if not (out / EXPERIMENT).is_file():
        return True
    compared = read_json(out / CONCLUSION).get("runs") if (out / CONCLUSION).is_file() else None
    if not compared:
        raise UserError(f"{out}: an experiment that has not ended; let `dllm2rec run` go on with it")
    return any(run.name in names for names in compared.values())


def _weight(runs: Sequence[Run]) -> tuple[int, float]:
    reached = [run.finished().fit.validation[METRIC] for run in runs]
    return len({run.config.seed for run in runs}), sum(reached) / len(reached)

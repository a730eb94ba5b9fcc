"""The whole experiment: prepare, teach, search, train, evaluate, compare, report; each kept by the hash of its input.

In its directory: `dataset-<hash>`, `knowledge-<hash>`, `studies` (of the search), and
`runs/<student>-<method>-seed<n>-<hash>`; in the end `comparison.json`, `search.json`, `doctor.json`, `results.md` and
`report.html`. Killed at any moment and started again it goes on; what is finished is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dllm2rec.comparison.comparing import tabulate
from dllm2rec.comparison.doctor import examine
from dllm2rec.comparison.evidence import gather
from dllm2rec.comparison.examination import Examination
from dllm2rec.comparison.results import Comparison
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import exclusive, hash_json, read_json, remove_leftovers, require_fresh_directory, write_json
from dllm2rec.core.progress import Say
from dllm2rec.data import Dataset
from dllm2rec.distillation.methods import NoMethod
from dllm2rec.evaluation.references import REFERENCES, TEXT_REFERENCES
from dllm2rec.experiments.cells import Trained, Work, train_cells
from dllm2rec.experiments.stages import Stage, Stages
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.reporting.report.page import write_report
from dllm2rec.reporting.summary import Extras, write_summary
from dllm2rec.settings.config import Config
from dllm2rec.settings.teacher import KnowledgeSource, MergedTeacher, TeacherChoice
from dllm2rec.workflow.labelling import directory_name, finished, request
from dllm2rec.workflow.preparing import dataset_name, log_hashes, prepare
from dllm2rec.workflow.runs import CONCLUSION, EXPERIMENT, Run, software
from dllm2rec.workflow.search import Choice
from dllm2rec.workflow.teaching import teach
from dllm2rec.workflow.training import plan

SEARCH = "search.json"
COMPARISON = "comparison.json"
REPORT = "report.html"
SUMMARY = "results.md"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search gave.

    Attributes:
        stages: in the order in which they ran.
        choices: what was tried and chosen, for every student and method whose search did not fail.
    """

    stages: list[Stage]
    choices: tuple[Choice, ...]

    @property
    def failed(self) -> list[Stage]:
        """The stages that failed; not trials, of which a search leaves out those that fail."""
        return [stage for stage in self.stages if stage.error is not None and not stage.trial]


@dataclass(frozen=True, kw_only=True)
class ExperimentResult(SearchResult):
    """What an experiment gave.

    Attributes:
        path: its directory.
        comparison: tables and verdict.
        report: the HTML file.
    """

    path: Path
    comparison: Comparison
    report: Path


def run(config: Config, *, out: Path, jobs: int = 1, say: Say = lambda _: None) -> ExperimentResult:
    """Run an experiment, or what is left of it. A cell that fails is reported and does not stop the others.

    Args:
        config: the experiment.
        out: its directory.
        jobs: cells that are trained at once, each in a process of its own.
        say: told in words what each stage did.

    Raises:
        UserError: the log, the teacher or the directory is at fault, another process is at work there, or no cell could
            be trained.
    """
    with exclusive(out):
        before = _concluded(out)
        if before.get("name", config.name) != config.name:
            say(
                f"{out}: replacing the report of '{before['name']}' there by that of '{config.name}'; the runs of both "
                "stay"
            )
        elif before.get("config", _hash(config)) != _hash(config):
            say(f"{out}: replacing the report there, which was made with other settings; its runs stay")
        work = _begin(config, out, say, total=_count(config))
        if config.search is None:  # which may make possible what is not yet
            _require_possible(work)
        trained = train_cells(work, jobs, config.seeds)
        runs = [run for one in trained for run in one.runs]
        choices = _chosen(trained, say)
        if not runs:
            raise UserError(f"no cell could be trained; the last one failed with: {work.stages.done[-1].error}")
        comparison = _conclude(work, runs, choices)
    return ExperimentResult(
        path=out, stages=work.stages.done, comparison=comparison, choices=choices, report=out / REPORT
    )


def _require_possible(work: Work) -> None:
    """Check every student and method before the first is trained.

    Raises:
        UserError: the teacher has not what a method needs.
    """
    for student in work.config.students:
        for method in work.config.methods:
            try:
                plan(work.dataset, work.config.cell(student, method), seed=0, knowledge=work.knowledge.get(method))
            except UserError as error:
                raise UserError(f"student '{student}', method '{method}': {error}") from None


def tune(config: Config, *, out: Path, jobs: int = 1, say: Say = lambda _: None) -> SearchResult:
    """Search for the settings of every student and method; `run` then trains the best for all seeds.

    Args:
        config: an experiment with a `[search]` table.
        out: its directory; `run` finds there what was tried.
        jobs: cells that are searched at once, each in a process of its own.
        say: told in words what each stage did.

    Raises:
        UserError: there is no search, the log, the teacher or the directory is at fault, another process is at work
            there, or every search failed.
    """
    if config.search is None:
        raise UserError(f"experiment '{config.name}' has nothing to tune: add a [search] table (see configs/toys.toml)")
    with exclusive(out):
        work = _begin(config, out, say, total=_count(config.model_copy(update={"seeds": ()})) - 1)
        choices = _chosen(train_cells(work, jobs, ()), say)
        if not choices:
            raise UserError(f"every search failed; the last one with: {work.stages.done[-1].error}")
        write_json(out / SEARCH, [choice.model_dump(mode="json") for choice in choices])
    return SearchResult(stages=work.stages.done, choices=choices)


def _chosen(trained: Sequence[Trained], say: Say) -> tuple[Choice, ...]:
    """Return what searches chose, and say where more trials are known than were asked for."""
    choices = tuple(one.choice for one in trained if one.choice is not None)
    for choice in choices:
        known = len(choice.trials) + choice.unused
        if choice.unused > 0:
            say(
                f"{choice.student}, {choice.method}: {known} trials are known, but search.trials = "
                f"{len(choice.trials)} leaves out the last {choice.unused}; for all: --set search.trials={known}"
            )
    return choices


def _begin(config: Config, out: Path, say: Say, *, total: int) -> Work:
    """Prepare and teach."""
    require_fresh_directory(out, marker=EXPERIMENT)
    teacher = config.teacher
    write_json(out / EXPERIMENT, {"config": config.model_dump(mode="json")})
    remove_leftovers(out)
    merged = teacher.sources if isinstance(teacher, MergedTeacher) else ()
    total += sum(not isinstance(source, KnowledgeSource) for source in merged)
    stages = Stages(out=out, say=say, total=total)
    dataset = _prepare(config, out, stages)
    if teacher is None:
        return Work(config=config, out=out, stages=stages, dataset=dataset, teachers=(), knowledge={})
    sources = [
        source.path
        if isinstance(source, KnowledgeSource)
        else _teach(source, out, stages, dataset, name=f"teach source {number}").path
        for number, source in enumerate(merged, start=1)
    ]
    known = {0: _teach(teacher, out, stages, dataset, name="teach")}
    known |= {number: Knowledge.load(sources[number - 1]) for number in sorted(set(config.learns_from.values()))}
    learned = {
        name: known[config.learns_from.get(name, 0)]
        for name, method in config.methods.items()
        if not isinstance(method, NoMethod)
    }
    teachers = tuple(known.values())
    return Work(config=config, out=out, stages=stages, dataset=dataset, teachers=teachers, knowledge=learned)


def _hash(config: Config) -> str:
    return hash_json(config.model_dump(mode="json"))


def _concluded(out: Path) -> dict[str, Any]:
    """Return the `runs` of each experiment that was concluded there, by its name.

    Where the report there is whole, also the `name` of its experiment, a hash of its `config`, and a `key` of all that
    it is made of.
    """
    concluded = {"runs": {}, **(read_json(out / CONCLUSION) if (out / CONCLUSION).is_file() else {})}
    whole = all((out / name).is_file() for name in (COMPARISON, REPORT, SUMMARY))
    return concluded if whole else {"runs": concluded["runs"]}


def _count(config: Config) -> int:
    """Stages in all: prepare, teach, the trials, training and evaluation of each seed, and the conclusion.

    Sources that are merged are not counted.
    """
    cells = len(config.students) * len(config.methods)
    trials = config.search.trials * cells if config.search else 0
    return 1 + (config.teacher is not None) + trials + 2 * cells * len(config.seeds) + 1


def _prepare(config: Config, out: Path, stages: Stages) -> Dataset:
    settings = config.dataset
    described = settings.model_dump(mode="json", exclude={"interactions", "items", "name"})
    path = out / f"dataset-{hash_json([log_hashes(settings), described])[:8]}"
    cached = path.is_dir() and Dataset.load(path).manifest.name == dataset_name(settings)
    work = partial(Dataset.load, path) if cached else partial(prepare, settings, out=path)
    return stages.do("prepare", path, work, cached=cached)


def _teach(teacher: TeacherChoice, out: Path, stages: Stages, dataset: Dataset, *, name: str) -> Knowledge:
    if isinstance(teacher, KnowledgeSource):
        there = Knowledge.load(teacher.path)
        require_same_dataset(there, dataset)
        return stages.do(name, teacher.path, lambda: there, cached=True)
    asked = request(dataset, teacher.model_dump(mode="json"))
    path = out / directory_name(asked)
    knowledge = finished(path, asked)
    if knowledge is not None:
        return stages.do(name, path, lambda: knowledge, cached=True)
    return stages.do(name, path, partial(teach, dataset, teacher, out=path), cached=False)


def _conclude(work: Work, runs: Sequence[Run], choices: Sequence[Choice]) -> Comparison:
    """Compare, examine the teacher, and write the summary and the report."""
    evaluation, out = work.config.evaluation, work.out
    key = hash_json(
        {
            "dataset": work.dataset.manifest.name,
            "runs": [[run.path.name, run.config.label, run.config.hash] for run in runs],
            "evaluation": evaluation.model_dump(mode="json"),
            "search": [choice.model_dump(mode="json") for choice in choices],
            "references": {name: one.model_dump(mode="json") for name, one in (REFERENCES | TEXT_REFERENCES).items()},
            "teachers": [one.content_hash for one in work.teachers],
            "version": software().get("dllm2rec"),
        }
    )
    name, before = work.config.name, _concluded(out)
    there = _compared(out) if (before.get("name"), before.get("key")) == (name, key) else None
    cached = there is not None
    if there is not None:
        conclude = partial(Comparison.model_copy, there)
    else:  # what is written from now on is not of the report that was there
        write_json(out / CONCLUSION, {"runs": before["runs"]})
        conclude = partial(_write, work, runs, choices)
    comparison = work.stages.do("compare and report", out / REPORT, conclude, cached=cached)
    compared = {**before["runs"], name: sorted(run.path.name for run in runs)}
    write_json(out / CONCLUSION, {"name": name, "config": _hash(work.config), "key": key, "runs": compared})
    return comparison


def _compared(out: Path) -> Comparison | None:
    """Return the comparison that was written; None where it is damaged, so that it is made again."""
    try:
        found: Comparison = Comparison.model_validate(read_json(out / COMPARISON))
    except (UserError, ValidationError):
        return None
    return found


def _write(work: Work, runs: Sequence[Run], choices: Sequence[Choice]) -> Comparison:
    evaluation, out = work.config.evaluation, work.out
    evidence = gather(runs, mask_history=evaluation.mask_history)
    comparison = tabulate(evidence, seed=evaluation.seed, against=evaluation.against)
    pages = _examine(work, runs)
    write_json(out / COMPARISON, comparison.model_dump(mode="json"))
    write_json(out / SEARCH, [choice.model_dump(mode="json") for choice in choices])
    write_json(out / "doctor.json", [page.model_dump(mode="json") for page in pages])
    extras = Extras(name=work.config.name, pages=pages, choices=tuple(choices), times=work.stages.times())
    write_summary(comparison, extras, out / SUMMARY)
    write_report(evidence, comparison, extras, out / REPORT)
    return comparison


def _examine(work: Work, runs: Sequence[Run]) -> tuple[Examination, ...]:
    plain = next((run for run in runs if not run.config.distilled), None)
    return tuple(examine(one, work.dataset, student=plain, test=True) for one in work.teachers)

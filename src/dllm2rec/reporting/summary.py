"""An experiment in Markdown: the answer, the tables, the doctor's page, the search, and how long it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dllm2rec.comparison.diagnosis import headline
from dllm2rec.comparison.examination import Examination
from dllm2rec.comparison.formatting import markdown, piped
from dllm2rec.comparison.results import Comparison
from dllm2rec.core.figures import duration, figure
from dllm2rec.core.files import atomic_path
from dllm2rec.workflow.search import Choice


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What an experiment knows beyond its tables.

    Attributes:
        name: of the experiment.
        pages: of the doctor, one a teacher.
        choices: of the search.
        times: seconds of each stage over all runs.
    """

    name: str
    pages: tuple[Examination, ...] = ()
    choices: tuple[Choice, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)


def write_summary(comparison: Comparison, extras: Extras, file: Path) -> None:
    """Write the summary."""
    parts = [f"# {extras.name}", f"**{comparison.verdict.headline}**", _bullets(comparison.verdict.lines)]
    parts += [markdown(table) for table in comparison.tables]
    for page in extras.pages:
        lines = [finding.text for finding in page.findings]
        parts += [f"## The teacher {page.name}, examined", headline(page), _bullets(lines)]
    if extras.choices:
        parts += ["## Search on validation", search_markdown(extras.choices)]
        if lines := importance_lines(extras.choices):
            parts += ["What the validation NDCG@20 varies with (PED-ANOVA):", _bullets(lines)]
    if extras.times:
        parts += ["## How long it took", _bullets(timing_lines(extras.times))]
    with atomic_path(file) as target:
        target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def search_rows(choices: Sequence[Choice]) -> list[tuple[str, ...]]:
    """Return for each trial: student, method, what it sets, validation NDCG@20, epochs, and whether it was chosen."""
    return [
        (
            choice.student,
            choice.method,
            ", ".join(f"{name}={_short(value)}" for name, value in trial.change.items()),
            "failed" if trial.validation is None else figure(trial.validation),
            str(trial.epochs) if trial.error is None else trial.error,
            _chosen(choice) if index == choice.chosen else "",
        )
        for choice in choices
        for index, trial in enumerate(choice.trials)
    ]


def importance_lines(choices: Sequence[Choice]) -> list[str]:
    """Say for each student and method which settings mattered."""
    return [
        f"{choice.student}, {choice.method}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in choice.importance.items())
        for choice in choices
        if choice.importance
    ]


def _chosen(choice: Choice) -> str:
    edges = f"; at the edge of its range: {', '.join(choice.edges)}" if choice.edges else ""
    return f"chosen{edges}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


SEARCH_HEADER = ("student", "method", "trial", "validation NDCG@20", "epochs", "")


def search_markdown(choices: Sequence[Choice]) -> str:
    """Write the trials as a Markdown table."""
    lines = [SEARCH_HEADER, ["---"] * len(SEARCH_HEADER), *search_rows(choices)]
    return "\n".join(map(piped, lines))


def timing_lines(times: Mapping[str, float]) -> list[str]:
    """Say how long each kind of stage took."""
    kinds: dict[str, list[float]] = {}
    for name, seconds in times.items():
        kinds.setdefault(name.split(" ")[0], []).append(seconds)
    lines = [f"{kind}: {duration(sum(values))} s ({len(values)} in all)" for kind, values in kinds.items()]
    return [*lines, f"together: {duration(sum(times.values()))} s"]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

"""Verb `report`: one HTML file, which needs no network, from evidence."""

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from dllm2rec.comparison.evidence import Evidence
from dllm2rec.comparison.results import Comparison
from dllm2rec.core.files import atomic_path
from dllm2rec.reporting.report.cases import user_cards
from dllm2rec.reporting.report.charts import scripts
from dllm2rec.reporting.report.markup import answer, comparison_table, paragraph, section
from dllm2rec.reporting.report.sections import (
    agreement,
    doctors_page,
    search_table,
    settings_and_versions,
    slices,
    training_curves,
)
from dllm2rec.reporting.summary import Extras


def write_report(evidence: Evidence, comparison: Comparison, extras: Extras, file: Path) -> None:
    """Write the report, atomically.

    Args:
        evidence: ranks on the split.
        comparison: made of it.
        extras: what else the experiment knows.
        file: the HTML file.

    Raises:
        UserError: the disk refuses.
    """
    html = render(evidence, comparison, extras)
    with atomic_path(file) as target:
        target.write_text(html, encoding="utf-8")


def render(evidence: Evidence, comparison: Comparison, extras: Extras) -> str:
    """Return the report as HTML."""
    return document(f"dllm2rec: {extras.name}", _body(evidence, comparison, extras))


def document(title: str, body: str) -> str:
    """Return a whole HTML file around a body with charts."""
    plotly, theme = scripts()
    skeleton = Template(files("dllm2rec.reporting.report").joinpath("skeleton.html").read_text(encoding="utf-8"))
    return skeleton.substitute(title=escape(title), body=plotly + body, script=theme)


def _body(evidence: Evidence, comparison: Comparison, extras: Extras) -> str:
    taught = any(group.distilled for group in evidence.groups)
    question = f"{extras.name}: {'did the teacher teach the small one anything?' if taught else 'which one to ship?'}"
    parts = [
        answer(question, comparison.verdict),
        section("Results", *(comparison_table(table) for table in comparison.tables)),
        section("Training", training_curves(evidence)),
        section("For whom", *slices(evidence)),
        section("Teacher against student", *agreement(evidence)),
        *(section(f"The teacher {page.name}, examined", *doctors_page(page)) for page in extras.pages),
        section(
            "Up to twenty users",
            paragraph(
                "Drawn with a fixed seed: some for whom the target rose, some for whom it fell, the rest as they come.",
                style="soft",
            ),
            user_cards(evidence),
        ),
        section("Search on validation", search_table(extras)),
        section("Settings and versions", *settings_and_versions(evidence, extras)),
    ]
    return "\n".join(part for part in parts if part)

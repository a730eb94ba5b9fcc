"""Figure 2 of the paper: how NDCG@20 moves with lambda_d and the three gammas, one at a time."""

from collections.abc import Sequence
from pathlib import Path

from dllm2rec.comparison.evidence import Group
from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import figure
from dllm2rec.core.files import atomic_path
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.evaluation.metrics import METRIC, METRICS
from dllm2rec.reporting.paper.cells import TUNED, Results, differences
from dllm2rec.reporting.paper.sheet import Cell, Sheet, plain
from dllm2rec.reporting.paper.tables import notes
from dllm2rec.reporting.report.charts import line_chart
from dllm2rec.reporting.report.markup import bullets
from dllm2rec.reporting.report.page import document

Points = dict[tuple[str, str, str], list[tuple[float, Group]]]
"""For dataset, row and setting the cells, by value."""


def sensitivity(results: Sequence[Results]) -> Points:
    """Find the cells that differ from DLLM2Rec as it was tuned in one weight only.

    Raises:
        UserError: there are none.
    """
    points: Points = {}
    for one in results:
        for student in one.students:
            for full in one.full(student):
                for name in TUNED:
                    found = sorted(_along(name, full, one.of(student)), key=lambda point: point[0])
                    if len(found) > 1:
                        points[one.dataset, full.label, name] = found
    if not points:
        raise UserError(
            "figure 2 needs cells with DLLM2Rec that differ in one weight only, such as method.lambda_d=0.3 and "
            f"method.lambda_d=1; {', '.join(str(one.path) for one in results)} has none"
        )
    return points


def sheet(results: Sequence[Results]) -> Sheet:
    """Return the figure's points as a table."""
    rows: list[tuple[Cell, ...]] = []
    for (dataset, label, name), found in sensitivity(results).items():
        for value, group in found:
            shown = [figure(float(group.values[metric].mean())) for metric in METRICS]
            rows.append(plain(dataset, label, name, f"{value:g}", *shown))
    return Sheet(
        name="Figure 2",
        title="Sensitivity to the weights of DLLM2Rec, one at a time",
        header=("dataset", "student", "setting", "value", *METRICS),
        rows=tuple(rows),
        notes=notes(results),
    )


def write_figure(results: Sequence[Results], file: Path) -> None:
    """Draw the figure as an HTML file that needs no network.

    Raises:
        UserError: there is nothing to draw, or the disk refuses.
    """
    series: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for (dataset, label, name), found in sensitivity(results).items():
        heights = [float(group.values[METRIC].mean()) for _, group in found]
        series.setdefault(name, {})[f"{label} on {dataset}"] = [value for value, _ in found], heights
    charts = [
        line_chart(name.replace("_", "-"), lines, x=name, y=METRIC, caption=f"{METRIC} against {name}.")
        for name, lines in series.items()
    ]
    lines = bullets(notes(results), style="notes")
    html = document("Figure 2", f"<h1>Sensitivity to the weights of DLLM2Rec</h1>{''.join(charts)}{lines}")
    with atomic_path(file) as target:
        target.write_text(html, encoding="utf-8")


def _along(name: str, full: Group, groups: Sequence[Group]) -> list[tuple[float, Group]]:
    found = []
    for group in groups:
        method = group.runs[0].config.settings.method
        if isinstance(method, DLLM2RecSettings) and differences(group, full).keys() <= {name}:
            found.append((float(getattr(method, name)), group))
    return found

"""Charts of the report."""

import json
import re
from typing import Any

from dllm2rec.reporting.report.charts import bar_chart, line_chart

MANY = [f"series {number}" for number in range(20)]


def traces(html: str) -> list[dict[str, Any]]:
    """What plotly is told to draw."""
    found = re.search(r'Plotly\.newPlot\(\s*"name",\s*(\[.*?\]),\s*\{', html, flags=re.DOTALL)
    assert found is not None
    drawn: list[dict[str, Any]] = json.loads(found[1])
    return drawn


def test_no_two_of_many_series_look_the_same() -> None:
    lines = traces(line_chart("name", {one: ([1, 2], [0.1, 0.2]) for one in MANY}, x="x", y="y", caption="c"))
    assert [one["name"] for one in lines] == MANY
    assert len({(one["line"]["color"], one["line"]["dash"]) for one in lines}) == len(MANY)
    bars = traces(bar_chart("name", ["a", "b"], {one: [0.1, None] for one in MANY}, y="y", caption="c"))
    assert len({(one["marker"]["color"], one["marker"]["pattern"]["shape"]) for one in bars}) == len(MANY)

"""Charts that read in light and in dark, drawn by plotly, which the report carries along."""

from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_COLOURS = ("#0f8b8d", "#e07a1f", "#7b5cd6", "#c2385a", "#4f7f2a", "#3273c8", "#9a6b3f", "#777777")
_DASHES, _PATTERNS = ("solid", "dash", "dot"), ("", "/", "x")
_GRID = "rgba(128,128,128,0.25)"
_THEME = """
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    document.querySelectorAll(".plotly-graph-div").forEach((plot) => Plotly.relayout(plot, {"font.color": ink}));
  };
  dark.addEventListener("change", paint);
  paint();
})();
"""


def line_chart(
    name: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str, caption: str
) -> str:
    """Draw a line for each of ``series``: its x values and its y values."""
    traces = [
        go.Scatter(
            x=list(xs),
            y=list(ys),
            name=label,
            mode="lines+markers",
            line={"color": colour(index), "dash": _style(index, _DASHES)},
        )
        for index, (label, (xs, ys)) in enumerate(series.items())
    ]
    return _figure(name, traces, x=x, y=y, caption=caption)


def bar_chart(
    name: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], *, y: str, caption: str
) -> str:
    """Draw for each of ``groups`` a bar of each of ``series``."""
    traces = [
        go.Bar(
            x=list(groups),
            y=list(values),
            name=label,
            marker={"color": colour(index), "pattern": {"shape": _style(index, _PATTERNS)}},
        )
        for index, (label, values) in enumerate(series.items())
    ]
    return _figure(name, traces, x="", y=y, caption=caption)


def colour(index: int) -> str:
    """Return the colour of a series; they repeat after eight, with other dashes or patterns."""
    return _COLOURS[index % len(_COLOURS)]


def _style(index: int, styles: Sequence[str]) -> str:
    """Return the style of a series by how often its colour was taken before."""
    return styles[index // len(_COLOURS) % len(styles)]


def scripts() -> tuple[str, str]:
    """Return plotly itself, to stand before the charts, and what follows the reader's choice of light or dark."""
    return f"<script>{get_plotlyjs()}</script>", f"<script>{_THEME}</script>"


def _figure(name: str, traces: Sequence[go.Scatter | go.Bar], *, x: str, y: str, caption: str) -> str:
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "automargin": True}
    layout = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#808080", "family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},  # below are names of groups, at any angle
        "barmode": "group",
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}, "rangemode": "tozero"},
    }
    figure = go.Figure(data=list(traces), layout=layout)
    html = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}
    )
    return f'<figure><div class="plot">{html}</div><figcaption>{escape(caption)}</figcaption></figure>'

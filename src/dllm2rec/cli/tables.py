"""Comparisons for people at a terminal."""

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from dllm2rec.comparison.formatting import best_rows, header, table_rows
from dllm2rec.comparison.results import Comparison, Outcome, Table

WIDE = 100
"""Columns of a terminal from which tables show how long 1,000 users take."""
_STYLES: dict[Outcome, str] = {"helped": "bold green", "harmed": "bold red", "unclear": "bold yellow", "none": "bold"}


def comparison_text(comparison: Comparison) -> list[RenderableType]:
    """Return the tables with their notes, then the verdict."""
    parts: list[RenderableType] = []
    for table in comparison.tables:
        parts += [_table(table), *(Text(note, style="dim") for note in table.notes), ""]
    verdict = comparison.verdict
    parts.append(Text(verdict.headline, style=_STYLES[verdict.outcome]))
    parts += [Text(f"- {line}") for line in verdict.lines]
    return parts


def _table(table: Table) -> RichTable:
    rich = RichTable(
        title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    names = header(table)
    if Console().width < WIDE:  # or figures would leave no room for the names of rows
        names = names[:-1]
    for index, name in enumerate(names):
        rich.add_column(
            name.replace(" ", "\n"), justify="right" if index else "left", overflow="fold", no_wrap=index > 0
        )
    best = best_rows(table)
    for index, row in enumerate(table_rows(table)):
        rich.add_row(*(Text(cell) for cell in row[: len(names)]), style="bold" if index in best else None)
    return rich

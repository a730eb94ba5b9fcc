"""A table's figures as text, the same on the terminal, in Markdown and in the report."""

from collections.abc import Sequence

from dllm2rec.comparison.results import Row, Table
from dllm2rec.core.figures import duration, figure, p_figure, percent
from dllm2rec.evaluation.metrics import METRIC, METRICS
from dllm2rec.evaluation.slices import UNSEEN


def header(table: Table) -> tuple[str, ...]:
    """Name the columns; some are there only where a row has something to show in them.

    That is NDCG@20 on validation, by which the best were chosen, and HR@20 on targets that training never saw.
    """
    chosen = ("valid.",) if _shows_validation(table) else ()
    unseen = ("unseen",) if _shows_unseen(table) else ()
    return ("", *METRICS, *chosen, *unseen, f"vs {table.against}", "p (Holm)", "s/1k users")


def table_rows(table: Table) -> list[tuple[str, ...]]:
    """Return one text for each column of `header`, for each row of a table."""
    shows_validation, shows_unseen = _shows_validation(table), _shows_unseen(table)
    return [
        (
            row.label,
            *(_metric(row, name) for name in METRICS),
            *([figure(row.validation) if row.validation is not None else ""] if shows_validation else []),
            *([figure(row.slices[UNSEEN]) if UNSEEN in row.slices else ""] if shows_unseen else []),
            percent(row.versus.gain) if row.versus else "",
            p_figure(row.versus.p_value) if row.versus else "",
            duration(row.seconds_per_1000),
        )
        for row in table.rows
    ]


def best_rows(table: Table) -> set[int]:
    """Return the index of the row with the largest NDCG@20, as a set: empty for an empty table."""
    values = [row.metrics[METRIC] for row in table.rows]
    return {values.index(max(values))} if values else set()


def markdown(table: Table) -> str:
    """Write a table as Markdown, with its title and notes."""
    names = header(table)
    lines = [f"**{table.title}**", "", piped(names), piped(["---", *["---:"] * (len(names) - 1)])]
    lines += [piped(row) for row in table_rows(table)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)])


def _shows_validation(table: Table) -> bool:
    return any(row.validation is not None for row in table.rows)


def _shows_unseen(table: Table) -> bool:
    return any(row.slices.get(UNSEEN, 0.0) > 0 for row in table.rows)


def piped(texts: Sequence[str]) -> str:
    """Write the row of a Markdown table."""
    escaped = [text.replace("|", r"\|") for text in texts]
    return f"| {' | '.join(escaped)} |"


def _metric(row: Row, name: str) -> str:
    spread = f"±{figure(row.spread[name])}" if name in row.spread else ""
    return figure(row.metrics[name]) + spread

"""Small pieces of HTML; whatever comes from the user's data is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape

from dllm2rec.comparison.examination import Finding
from dllm2rec.comparison.formatting import best_rows, header, table_rows
from dllm2rec.comparison.results import Table, Verdict


def paragraph(text: str, *, style: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(style)}>{escape(text)}</p>"


def section(title: str, *parts: str) -> str:
    """A headed section; nothing where there are no parts."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def answer(question: str, verdict: Verdict) -> str:
    """The first screen: the question, the answer, and the figures behind it."""
    return (
        f"<h1>{escape(question)}</h1>\n"
        f'<p class="answer {verdict.outcome}">{escape(verdict.headline)}</p>\n{bullets(verdict.lines, style="lines")}'
    )


def comparison_table(table: Table) -> str:
    """A table of results with its notes; the best row stands out."""
    best = best_rows(table)
    body = "".join(_row(cells, best=index in best) for index, cells in enumerate(table_rows(table)))
    return f"<h3>{escape(table.title)}</h3>\n{grid(header(table), body)}\n{bullets(table.notes, style='notes')}"


def bullets(lines: Iterable[str], *, style: str) -> str:
    """A list of plain sentences."""
    return f"<ul{_class(style)}>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    return grid(header, "".join(_row(row, best=False) for row in rows))


def grid(header: Sequence[str], body: str) -> str:
    """A table that scrolls sideways where the screen is narrow, with the keyboard too."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    opening = '<div class="scroll" tabindex="0" role="region" aria-label="table">'
    return f"{opening}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def findings(found: Iterable[Finding]) -> str:
    """The doctor's sentences; what speaks against the teacher stands out."""
    return f'<ul class="lines">{"".join(f"<li{_class(one.level)}>{escape(one.text)}</li>" for one in found)}</ul>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what belongs to each; the second of a pair is HTML already."""
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{text}</dd>" for term, text in pairs) + "</dl>"


def folded(summary: str, text: str) -> str:
    """Preformatted text that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def _row(cells: Sequence[str], *, best: bool) -> str:
    style = _class("best" if best else "")
    return "<tr>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""

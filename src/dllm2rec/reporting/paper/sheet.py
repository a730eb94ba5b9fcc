"""One table of text, written as Markdown, LaTeX or CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dllm2rec.comparison.formatting import piped

Format = Literal["markdown", "latex", "csv"]
Mark = Literal["", "best", "second"]
MISSING = "-"
SPREAD = " ± "
"""Between a mean and the standard deviation over seeds."""

_WORDS = {"dataset", "student", "method", "setting", ""}  # columns of words stand on the left
_LATEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "±": r"$\pm$", "{": r"\{", "}": r"\}"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure.

    Attributes:
        text: as it is read; `MISSING` where there is none.
        mark: of the best and the second best of a column.
    """

    text: str
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table.

    Attributes:
        name: such as "Table 5".
        title: what it shows.
        header: a text for each column.
        rows: as many cells each as the header has texts.
        notes: what was measured and how, one sentence each.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]

    def write(self, form: Format) -> str:
        """Return the table as text that ends with a line break; its notes, where it has any, stand below."""
        match form:
            case "markdown":
                return self._markdown()
            case "latex":
                return self._latex()
            case "csv":
                return self._csv()

    def _markdown(self) -> str:
        marks = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
        lines = [f"**{self.name}. {self.title}**", "", piped(self.header)]
        lines.append(piped(["---" if name in _WORDS else "---:" for name in self.header]))
        lines += [piped([marks[cell.mark].format(cell.text) for cell in row]) for row in self.rows]
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*lines, *notes]) + "\n"

    def _latex(self) -> str:
        marks = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escaped(self.title)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if name in _WORDS else 'r' for name in self.header)}}}",
            r"\hline",
            " & ".join(map(_escaped, self.header)) + r" \\",
            r"\hline",
        ]
        lines += [
            " & ".join(marks[cell.mark].format(_escaped(cell.text)) for cell in row) + r" \\" for row in self.rows
        ]
        notes = [rf"\par\small {_escaped(' '.join(self.notes))}"] if self.notes else []
        return "\n".join([*lines, r"\hline", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"

    def _csv(self) -> str:
        buffer = io.StringIO()
        buffer.write("".join(f"# {line}\n" for line in (f"{self.name}. {self.title}", *self.notes)))
        columns = []
        for name, *cells in zip(self.header, *([cell.text for cell in row] for row in self.rows), strict=True):
            means, _, spreads = zip(*(text.partition(SPREAD) for text in cells), strict=True)
            columns.append([name, *means])
            if any(spreads):
                columns.append([f"{name} sd", *spreads])
        csv.writer(buffer, lineterminator="\n").writerows(zip(*columns, strict=True))
        return buffer.getvalue()


def plain(*texts: str) -> tuple[Cell, ...]:
    """Return cells without marks."""
    return tuple(Cell(text=text) for text in texts)


def marked(values: Sequence[float | None], texts: Sequence[str]) -> list[Cell]:
    """Mark the best and the second best of a column; equal ones (as they are written) share a mark."""
    written = [None if value is None else round(value, 4) for value in values]
    order = sorted({value for value in written if value is not None}, reverse=True)
    marks: dict[float | None, Mark] = dict(zip(order[:2], ("best", "second"), strict=False))
    return [Cell(text=text, mark=marks.get(value, "")) for value, text in zip(written, texts, strict=True)]


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\\", "/"))

"""`dllm2rec paper`: the paper's tables and figure from our runs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dllm2rec.cli.options import HeldOut, Json, show, there, words_to_stderr
from dllm2rec.core.errors import UserError

SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}


def paper(
    *,
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            callback=there,
            help="Directories written by `dllm2rec run`, or holding runs; one per dataset.",
        ),
    ],
    table: Annotated[
        list[int] | None,
        typer.Option(
            metavar="1..9",
            help="Which table; repeatable. By default every table and figure that the results allow.",
        ),
    ] = None,
    figure: Annotated[list[int] | None, typer.Option(metavar="2", help="Which figure.")] = None,
    form: Annotated[Literal["markdown", "latex", "csv"], typer.Option("--format", help="Output format.")] = "markdown",
    split: HeldOut = "test",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write files to this directory instead of printing; required for figures."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the paper's tables with our results beside the paper's; missing runs are shown as missing.

    Example: dllm2rec paper runs/toys runs/games --table 5 --format latex
    """
    from dllm2rec.core.files import atomic_path
    from dllm2rec.reporting.paper.cells import load_results
    from dllm2rec.reporting.paper.sensitivity import sheet, write_figure
    from dllm2rec.reporting.paper.tables import require_known, tables
    from dllm2rec.reporting.paper.tables import table as build

    if any(number != 2 for number in figure or []):
        raise UserError(f"--figure {next(number for number in figure or [] if number != 2)}: only figure 2 has figures")
    for number in table or []:
        require_known(number)
    with words_to_stderr():
        found = load_results(results, split=split)
        asked = {number: build(number, found) for number in table or []}
        built = asked if table or figure else tables(found)
        sheets = {f"table-{number}": one for number, one in built.items()}
        if figure:
            sheets["figure-2"] = sheet(found)
        if out is not None:
            for name, one in sheets.items():
                with atomic_path(out / f"{name}{SUFFIXES[form]}") as target:
                    target.write_text(one.write(form), encoding="utf-8")
            if figure:
                write_figure(found, out / "figure-2.html")
    if out is not None and not json:
        typer.echo(f"{', '.join(sheets)} in {out}")
        return
    value = [
        {
            "name": one.name,
            "title": one.title,
            "header": one.header,
            "rows": [[cell.text for cell in row] for row in one.rows],
            "notes": one.notes,
        }
        for one in sheets.values()
    ]
    if json:
        show(value, as_json=True)
    else:  # all have the same notes: once is enough, below the last
        *others, last = sheets.values()
        shown = [*(replace(one, notes=()) for one in others), last]
        typer.echo("\n".join(one.write(form) for one in shown), nl=False)

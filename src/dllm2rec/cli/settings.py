"""`dllm2rec settings`: what can be set."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from dllm2rec.cli.options import Json, show
from dllm2rec.core.errors import UserError
from dllm2rec.settings.protocol import DEFAULT


def settings(
    *,
    verb: Annotated[
        Literal["prepare", "teach", "train", "update", "run", "tune", "serve"],
        typer.Argument(help="Which command; for run and tune, the keys of their TOML file."),
    ],
    words: Annotated[
        str,
        typer.Argument(metavar="[WORDS]", help="List only settings whose names contain this, such as student.dropout."),
    ] = "",
    protocol: Annotated[
        Literal["strong", "paper"], typer.Option(help="For train: which protocol's defaults to show.")
    ] = DEFAULT,
    json: Json = False,
) -> None:
    """List what --set, or a file of settings, can change: each name with its default and its meaning.

    Example: dllm2rec settings train student.dropout
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from dllm2rec.settings.manual import about, manual

    sections = about(words, manual(verb, protocol=protocol))
    if not sections:
        raise UserError(f"{verb} has no setting with '{words}' in its name; `dllm2rec settings {verb}` lists all")
    parts: list[Text | Table] = []
    for section in sections:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
        table.add_column(style="bold", overflow="fold", ratio=2)
        table.add_column(overflow="fold", ratio=1)
        table.add_column(overflow="fold", ratio=5)
        for one in section.settings:
            meaning = f"{one.meaning} ({one.allowed})" if one.allowed and one.meaning else one.meaning or one.allowed
            table.add_row(one.name, Text(one.default), Text(meaning))
        parts += [
            Text(f"\n[{section.name}] " if section.name else "\n", style="bold").append(section.about, style="dim"),
            table,
        ]
    show([asdict(section) for section in sections], *parts, as_json=json)

"""`dllm2rec add-items`: new items from their titles, without training."""

from pathlib import Path
from typing import Annotated

import typer

from dllm2rec.cli.options import Column, Json, Out, given, show, there, words_to_stderr


def add_items(
    *,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", callback=there, help="Directory made by `dllm2rec export`.")
    ],
    items: Annotated[Path, typer.Option(metavar="FILE", callback=there, help="Ids and titles of the new items.")],
    out: Out,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Encoder of the titles; by default the bundle's own.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=there, help="Text vectors of the file's items (.npy), instead of an encoder."
        ),
    ] = None,
    item_id_column: Column = None,
    title_column: Column = None,
    json: Json = False,
) -> None:
    """Add items to a bundle: each gets its vector from its title and is recommended at once.

    Columns have the names that `prepare` was given, unless others are given here.
    Example: dllm2rec add-items work/bundle --items new.csv --out work/bundle-2
    """
    from dllm2rec.bundling.adding import add_items as run
    from dllm2rec.data import Columns
    from dllm2rec.serving.bundle import Bundle

    columns = Columns.model_validate(given(item_id=item_id_column, title=title_column))
    with words_to_stderr():
        done = run(Bundle.load(bundle), items, out=out, model=model, vectors=vectors, columns=columns)
    show(
        {"bundle": str(out), "new": done.new, "known": done.known, "items": done.items},
        f"bundle in {out}: {done.new:,} new of {done.items:,} items"
        + (f"; passed over, for it has them already: {done.known:,}" if done.known else ""),
        as_json=json,
    )

"""`dllm2rec add-items`: new items from their titles, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dllm2rec.cli.options import ItemIdColumn, Json, Out, TitleColumn, given, show, there, words_to_stderr

if TYPE_CHECKING:
    from dllm2rec.bundling.adding import Added


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
    bias: Annotated[
        float | None,
        typer.Option(
            metavar="B",
            help="Added to the score of each new item: 0 ranks it by its title alone, less makes it rarer. By default "
            "the weight of new items that validation chose.",
        ),
    ] = None,
    item_id_column: ItemIdColumn = None,
    title_column: TitleColumn = None,
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
        done = run(Bundle.load(bundle), items, out=out, model=model, vectors=vectors, columns=columns, bias=bias)
    show(
        {
            "bundle": str(out),
            "new": done.new,
            "known": done.known,
            "items": done.items,
            "bias": done.bias,
            "listed": done.listed,
        },
        f"bundle in {out}: {done.new:,} new of {done.items:,} items"
        + (f"; passed over, for it has them already: {done.known:,}" if done.known else ""),
        *_share(done),
        as_json=json,
    )


def _share(done: "Added") -> list[str]:
    """Say how often new items are recommended now, where the bundle has histories to try it with."""
    if done.listed is None:
        return []
    return [
        f"new items are {done.listed:.0%} of the top 10 of its example histories; each has {done.bias:+.2f} added to "
        "its score (--bias changes that)"
    ]

"""`dllm2rec recommend`: what comes next after a history, or for all users of a log, from a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dllm2rec.cli.options import (
    ItemColumn,
    Json,
    TimeColumn,
    TimeUnitOfDataset,
    UserColumn,
    given,
    show,
    there,
    words_to_stderr,
)
from dllm2rec.core.errors import UserError

if TYPE_CHECKING:
    from dllm2rec.serving.recommender import ItemId, Recommender


def recommend(
    *,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", callback=there, help="Directory made by `dllm2rec export`.")
    ],
    history: Annotated[
        str | None, typer.Option(help="Item ids or titles, oldest first, separated by commas or semicolons.")
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=there,
            help="An interaction log: with --user recommend to one of its users, with --out to all.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Id of one user of the log.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet file for the recommendations to all users of the log; resumable."),
    ] = None,
    k: Annotated[int, typer.Option(help="How many items to recommend.")] = 20,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Do not recommend items of the history.")
    ] = False,
    only: Annotated[
        Path | None,
        typer.Option(
            "--filter", metavar="FILE", callback=there, help="Recommend only the ids in this file, one per line."
        ),
    ] = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search the bundle's approximate index (see export --index).")
    ] = False,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    time_unit: TimeUnitOfDataset = None,
    json: Json = False,
) -> None:
    """Recommend what comes next: after a history, to a user of a log, or to all of them.

    Columns have the names that `prepare` was given, unless others are given here.
    Example: dllm2rec recommend work/bundle --history "B00004T1SC, Uno Card Game" --k 10
    """
    from dllm2rec.serving.recommender import Recommender
    from dllm2rec.serving.titles import typed_items

    said = {"--history": history, "--interactions": interactions, "--user": user, "--out": out}
    asked = given(**said).keys()
    if asked not in ({"--history"}, {"--interactions", "--user"}, {"--interactions", "--out"}):
        there = f", not {' with '.join(sorted(asked))} alone" if asked else ""
        raise UserError(f"give --history, or --interactions with --user, or --interactions with --out{there}")
    if out is not None and out.suffix != ".parquet":
        raise UserError(f"--out {out}: it becomes a Parquet file; name it so, such as {out.with_suffix('.parquet')}")
    recommender = Recommender.load(bundle, approximate=approximate)
    columns = given(user=user_column, item=item_column, time=time_column, time_unit=time_unit)
    options: dict[str, Any] = {"k": k, "exclude_seen": exclude_seen, "candidates": None}
    unknown: list[str] = []
    if only is not None:
        options["candidates"], unknown = _ids(only, recommender)
        if unknown:
            some = ", ".join(map(repr, unknown[:3]))
            typer.echo(f"{only}: {len(unknown):,} ids that are not in the catalogue are left out ({some})", err=True)
    if interactions is not None and out is not None:
        _all(recommender, interactions, columns, out=out, json=json, **options)
        return
    if history is not None:
        items = typed_items(recommender.bundle, history)
    else:
        items = _of_user(recommender, interactions, columns, user)
    found = recommender.recommend([items], **options)[0]
    why = "nothing of this history is known" if items else "the history is empty"
    table = Table(title=f"the most popular items: {why}" if found.fallback else None)
    for name in ("", "id", "title", "score"):
        table.add_column(name, overflow="fold")  # an id that is cut is lost
    for place, (item, title, score) in enumerate(zip(found.items, found.titles, found.scores, strict=True), start=1):
        table.add_row(str(place), str(item), title, f"{score:.3f}")
    show({"history": items, "unknown_candidates": unknown, **vars(found)}, table, as_json=json)


def _all(
    recommender: "Recommender",
    interactions: Path,
    columns: dict[str, Any],
    *,
    out: Path,
    json: bool,
    **options: Any,
) -> None:
    from dllm2rec.bundling.batch import recommend_all
    from dllm2rec.data import Columns

    with words_to_stderr():
        done = recommend_all(recommender, interactions, out=out, columns=Columns(**columns), **options)
    show(
        {"out": str(out), "users": done.users, "fallbacks": done.fallbacks, "unknown_events": done.unknown},
        f"{out}: {done.users:,} users; {done.fallbacks:,} without a known item got the most popular ones; "
        f"{done.unknown:,} events with unknown items were left out",
        as_json=json,
    )


def _of_user(
    recommender: "Recommender", interactions: Path | None, columns: dict[str, Any], user: str | None
) -> "list[ItemId]":
    from dllm2rec.bundling.batch import history_of
    from dllm2rec.data import Columns

    assert interactions is not None  # noqa: S101 - the caller has looked
    assert user is not None  # noqa: S101
    return history_of(user, interactions, recommender, Columns(**columns))


def _ids(file: Path, recommender: "Recommender") -> "tuple[list[ItemId], list[str]]":
    """Read ids, one a line: those of the catalogue, and the others, as of a stock that is newer than the bundle.

    Raises:
        UserError: the file can't be read, or names no item of the catalogue.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read as text ({error})") from None
    named = {line: recommender.identify(line) for line in lines if line}
    found = [item for item in named.values() if item is not None]
    if not found:
        raise UserError(f"{file}: names no item of the catalogue; write ids, one a line")
    return found, [line for line, item in named.items() if item is None]

"""`dllm2rec prepare`: a log becomes a dataset directory."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dllm2rec.cli.options import (
    ItemColumn,
    ItemIdColumn,
    Json,
    Out,
    Set,
    TimeColumn,
    TimeUnit,
    TitleColumn,
    UserColumn,
    given,
    show,
    there,
    words_to_stderr,
)


def prepare(
    *,
    out: Out,
    interactions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=there, help="Users, items, times: .csv .tsv .parquet .jsonl .inter"),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=there, help="Item ids and titles, in the same formats.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="A packaged dataset instead of files: ml-100k")] = None,
    split: Annotated[
        Literal["paper", "global-time", "leave-one-out"],
        typer.Option(help="How to split the log into training, validation and test."),
    ] = "paper",
    name: Annotated[str | None, typer.Option(help="Name in tables and reports; by default the file's name.")] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    item_id_column: ItemIdColumn = None,
    title_column: TitleColumn = None,
    time_unit: TimeUnit = "s",
    settings: Set = None,
    json: Json = False,
) -> None:
    """Check a log, split it in time, and write the dataset directory.

    Example: dllm2rec prepare --interactions log.csv --items items.csv --split paper --out work/dataset
    """
    from dllm2rec.settings.dataset import DatasetSettings
    from dllm2rec.settings.parsing import override, validate
    from dllm2rec.workflow.preparing import days_told, remarks_on, unchosen_items
    from dllm2rec.workflow.preparing import prepare as run

    columns = given(user=user_column, item=item_column, time=time_column, item_id=item_id_column, title=title_column)
    values = given(source=source, interactions=interactions, items=items, name=name)
    values |= {"columns": {**columns, "time_unit": time_unit}, "split": {"kind": split}}
    chosen = validate(DatasetSettings, override(values, settings or []))
    with words_to_stderr():
        dataset = run(chosen, out=out)
    manifest = dataset.manifest
    counts = ", ".join(f"{count:,} {part}" for part, count in manifest.counts.items())
    unchosen = unchosen_items(dataset)
    never = f" ({unchosen:,} of them in no event)" if unchosen else ""
    remarks = remarks_on(dataset)
    show(
        {"dataset": str(out), **manifest.model_dump(mode="json"), "remarks": remarks},
        f"{manifest.name}: {manifest.num_users:,} users, {manifest.num_items:,} items{never}, "
        f"{manifest.num_interactions:,} interactions",
        f"examples: {counts} ({manifest.split.kind} split, hash {manifest.content_hash}), {days_told(dataset)}",
        *remarks,
        f"dataset written to {out}",
        as_json=json,
    )

"""`dllm2rec prepare`: a log becomes a dataset directory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dllm2rec.cli.options import Column, Json, Out, Set, TimeUnit, given, show, words_to_stderr

if TYPE_CHECKING:
    from dllm2rec.data import Dataset

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MUCH = 0.1  # of a part's examples: so many from one user are worth a word


def prepare(
    *,
    out: Out,
    interactions: Annotated[
        Path | None, typer.Option(help="Users, items, times: .csv .tsv .parquet .jsonl .inter")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Item ids and titles, in the same formats.")] = None,
    source: Annotated[
        str | None, typer.Option(help="A dataset that a package ships, instead of files: ml-100k")
    ] = None,
    split: Annotated[Literal["paper", "global-time", "leave-one-out"], typer.Option(help="How to cut it.")] = "paper",
    name: Annotated[str | None, typer.Option(help="For tables and reports; the file's name if not given.")] = None,
    user_column: Column = None,
    item_column: Column = None,
    time_column: Column = None,
    item_id_column: Column = None,
    title_column: Column = None,
    time_unit: TimeUnit = "s",
    settings: Set = None,
    json: Json = False,
) -> None:
    """Check a log, split it in time, and write the dataset directory.

    Example: dllm2rec prepare --interactions log.csv --items items.csv --split paper --out work/dataset
    """
    from dllm2rec.settings.dataset import DatasetSettings
    from dllm2rec.settings.parsing import override, validate
    from dllm2rec.workflow.preparing import prepare as run

    columns = given(user=user_column, item=item_column, time=time_column, item_id=item_id_column, title=title_column)
    values = given(source=source, interactions=interactions, items=items, name=name)
    values |= {"columns": {**columns, "time_unit": time_unit}, "split": {"kind": split}}
    chosen = validate(DatasetSettings, override(values, settings or []))
    with words_to_stderr():
        dataset = run(chosen, out=out)
    manifest = dataset.manifest
    counts = ", ".join(f"{count:,} {part}" for part, count in manifest.counts.items())
    remarks = _remarks(dataset, chosen.duplicates)
    show(
        {"dataset": str(out), **manifest.model_dump(mode="json"), "remarks": remarks},
        f"{manifest.name}: {manifest.num_users:,} users, {manifest.num_items:,} items{_unchosen(dataset)}, "
        f"{manifest.num_interactions:,} interactions",
        f"examples: {counts} ({manifest.split.kind} split, hash {manifest.content_hash}), {_days(dataset)}",
        *remarks,
        f"dataset written to {out}",
        as_json=json,
    )


def _unchosen(dataset: "Dataset") -> str:
    """Say how many items of the catalogue occur in no event."""
    from dllm2rec.data.directory import read_table_file

    count = dataset.num_items - read_table_file(dataset.path, "interactions", "item").to_series().n_unique()
    return f" ({count:,} of them in no event)" if count else ""


def _remarks(dataset: "Dataset", duplicates: str) -> list[str]:
    """Say what may surprise: what is left out, rows that repeat, events that are no examples, a user who is most."""
    from dllm2rec.data.directory import read_table_file

    events = read_table_file(dataset.path, "interactions").select("user", "item", "time")
    repeats = events.height - events.unique().height
    asked, manifest = sum(dataset.manifest.counts.values()), dataset.manifest
    possible = int((events.group_by("user").len()["len"] - 1).sum())
    found = []
    if (dropped := manifest.dropped) is not None:
        found.append(
            f"left out as incomplete: {dropped.items:,} items without a title, {dropped.events:,} events of items that "
            "are not there"
        )
    if repeats and duplicates == "keep":
        found.append(f"{repeats:,} rows repeat user, item and time of another: kept; --set duplicates=drop drops them")
    if asked < possible / 2 and manifest.split.kind == "paper":
        found.append(
            f"{asked:,} of {possible:,} events that follow another of their user are examples, as in the paper; "
            "--split global-time takes all"
        )
    return found + _unseen(dataset) + _dominated(dataset)


def _unseen(dataset: "Dataset") -> list[str]:
    """Say how many targets occur in nothing that students learn from, if that is much."""
    new = dataset.train_counts("before-cut") == 0
    shares = {split: float(new[dataset.examples(split).target].mean()) for split in ("validation", "test")}
    if max(shares.values()) < MUCH:
        return []
    told = " and ".join(f"{share:.0%} of {split}" for split, share in shares.items())
    return [f"{told} targets are items that no event before the split date has: only who reads titles can find them"]


def _dominated(dataset: "Dataset") -> list[str]:
    """Name the user who gives the greatest share of a part's examples, and of which parts it is much."""
    import polars as pl

    from dllm2rec.data.directory import read_table_file

    examples = read_table_file(dataset.path, "examples", "user", "split")
    counts = examples.group_by("split", "user").len()
    shares = counts.with_columns(share=pl.col("len") / pl.col("len").sum().over("split")).sort("share", "user")
    user = shares["user"][-1]
    parts = dict(shares.filter(pl.col("user") == user, pl.col("share") > MUCH).select("split", "share").iter_rows())
    if not parts:
        return []
    name = read_table_file(dataset.path, "users", "user_id").item(user, 0)
    told = ", ".join(f"{parts[part]:.0%} of {part}" for part in dataset.manifest.counts if part in parts)
    return [
        f"user {str(name)!r} gives {told} examples, and figures are as much about this one; "
        "if it is nobody (a robot, a shared account), leave it out of the log"
    ]


def _days(dataset: "Dataset") -> str:
    """Say of which days the examples are, which shows a wrong unit of the times."""
    import numpy as np

    times = np.concatenate([dataset.examples(split).time for split in ("train", "validation", "test")])
    first, last = (EPOCH + timedelta(seconds=float(end)) for end in (times.min(), times.max()))
    asked = " (is that right? else see --time-unit)" if last.year < 1980 else ""
    return f"of {first:%Y-%m-%d} to {last:%Y-%m-%d}{asked}"

"""Verb `prepare`: a log becomes a dataset directory, and what may surprise in it is said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import number_of
from dllm2rec.core.files import exclusive, hash_file
from dllm2rec.core.progress import progress_bar
from dllm2rec.data import Dataset, ml_100k, read_log, write_dataset
from dllm2rec.data.directory import read_table_file
from dllm2rec.settings.dataset import DatasetSettings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MUCH = 0.1
"""Of a part's examples: so many from one user, or so many of new items, are worth a word."""
AHEAD = timedelta(days=1)
"""Clocks that are fast, and times that were written without their zone, lie by less in the future."""


def prepare(settings: DatasetSettings, *, out: Path) -> Dataset:
    """Read, check, split and write a log.

    Args:
        settings: which log, and how it is cut.
        out: the dataset directory; an equal dataset that is there already is left as it is, but for its name.

    Raises:
        UserError: the log is wrong, a part of the split is empty, something else is at ``out``, or another process
            writes there.
    """
    interactions, items = log_files(settings)
    with exclusive(out), progress_bar("preparing", 2) as advance:
        advance(0, note=f"reading {interactions.name}")
        log = read_log(
            interactions,
            items,
            columns=settings.columns,
            duplicates=settings.duplicates,
            incomplete=settings.incomplete,
        )
        advance(note="splitting and writing")
        dataset = write_dataset(log, settings.split, out, name=dataset_name(settings))
        advance(note="")
    return dataset


def log_files(settings: DatasetSettings) -> tuple[Path, Path]:
    """Return the interactions and the items of the log."""
    if settings.interactions is not None and settings.items is not None:
        return settings.interactions, settings.items
    return ml_100k()


def dataset_name(settings: DatasetSettings) -> str:
    """Return the name for tables and reports."""
    if settings.name or settings.source:
        return settings.name or settings.source or ""
    interactions, _ = log_files(settings)
    stem = Path(interactions.name.removesuffix(".gz")).stem
    return interactions.resolve().parent.name if stem == "interactions" else stem


def log_hashes(settings: DatasetSettings) -> list[str]:
    """Return the hashes of the two files, so that a changed log is noticed.

    Raises:
        UserError: a file is missing.
    """
    for path in log_files(settings):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    return [hash_file(path) for path in log_files(settings)]


def unchosen_items(dataset: Dataset) -> int:
    """Count the items of the catalogue that occur in no event."""
    return dataset.num_items - read_table_file(dataset.path, "interactions", "item").to_series().n_unique()


def repeated_rows(dataset: Dataset) -> int:
    """Count the events that repeat user, item and time of another."""
    events = read_table_file(dataset.path, "interactions", "user", "item", "time")
    return events.height - events.unique().height


def remarks_on(dataset: Dataset, *, now: datetime | None = None) -> list[str]:
    """Say what may surprise: what is left out, rows that repeat, times to come, events that are no examples, and more.

    Args:
        dataset: just made.
        now: with its time zone; None is the current time.
    """
    events = read_table_file(dataset.path, "interactions", "user", "time")
    asked, manifest = sum(dataset.manifest.counts.values()), dataset.manifest
    possible = int((events.group_by("user").len()["len"] - 1).sum())
    found = []
    if (dropped := manifest.dropped) is not None:
        share = dropped.events / max(1, dropped.events + manifest.num_interactions)
        question = "; do the ids look the same in both files?" if share > MUCH else ""
        found.append(
            f"left out as incomplete: {number_of(dropped.items, 'item')} without a title, "
            f"{number_of(dropped.events, 'event')} ({share:.0%}) of these or of unknown items{question}"
        )
    if (repeats := repeated_rows(dataset)) and manifest.duplicates == "keep":
        found.append(f"{repeats:,} rows repeat user, item and time of another: kept; --set duplicates=drop drops them")
    found += to_come(events["time"], now)
    if asked < possible / 2 and manifest.split.kind == "paper":
        found.append(
            f"{asked:,} of {possible:,} events that follow another of their user are examples, as in the paper; "
            "--split global-time takes all"
        )
    return found + _unseen(dataset) + _dominated(dataset)


def days_told(dataset: Dataset) -> str:
    """Say of which days the examples are, which shows a wrong unit of the times."""
    times = np.concatenate([dataset.examples(split).time for split in ("train", "validation", "test")])
    first, last = _date(times.min()), _date(times.max())
    asked = " (is that right? else see --time-unit)" if last.year < 1980 else ""
    return f"of {first:%Y-%m-%d} to {last:%Y-%m-%d}{asked}"


def _date(time: float) -> datetime:
    return EPOCH + timedelta(seconds=float(time))


def to_come(times: pl.Series, now: datetime | None = None) -> list[str]:
    """Say how many events lie in the future: after one of them, an update takes no event of today."""
    now = now or datetime.now(UTC)
    later = times.filter(times > (now + AHEAD).timestamp())
    if later.is_empty():
        return []
    lie, last = "lies" if len(later) == 1 else "lie", _date(np.max(later.to_numpy()))
    return [
        f"{number_of(len(later), 'event')} {lie} in the future (the last on {last:%Y-%m-%d}): an update takes nothing "
        "older than the last event; if that is wrong, remove them from the log"
    ]


def _unseen(dataset: Dataset) -> list[str]:
    """Say how many targets occur in nothing that students learn from, if that is much."""
    new = dataset.train_counts("before-cut") == 0
    shares = {split: float(new[dataset.examples(split).target].mean()) for split in ("validation", "test")}
    if max(shares.values()) < MUCH:
        return []
    told = " and ".join(f"{share:.0%} of {split}" for split, share in shares.items())
    return [
        f"{told} targets are items that no event before the split date has: only a student that reads "
        "titles can find them"
    ]


def _dominated(dataset: Dataset) -> list[str]:
    """Name the user who gives the greatest share of a part's examples, and of which parts it is much."""
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
        "if this is no real user (a robot, a shared account), leave it out of the log"
    ]

"""A dataset goes on: newer events and newer items join it, and everything that was there keeps its index."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.data.catalogue import read_catalogue
from dllm2rec.data.columns import WELL_KNOWN, Columns
from dllm2rec.data.dataset import Dataset, prepare
from dllm2rec.data.directory import read_table_file
from dllm2rec.data.log import Log, item_index, read_events
from dllm2rec.data.sources import read_table
from dllm2rec.data.splits import GlobalTimeSplit
from dllm2rec.data.values import are_dates, like, shown_time

HELD_OUT = Fraction(1, 10)


def extend(
    dataset: Dataset, interactions: Path, items: Path | None = None, *, out: Path, columns: Columns = WELL_KNOWN
) -> Dataset:
    """Write the dataset that holds the events of another one and newer ones.

    It is cut by global time: of the new events the last tenth is for test, the tenth before for validation. All other
    events are for training, also those that the old dataset kept for validation and test. Users, items and events keep
    their indices, and examples their ids, so that labels of the old dataset hold for this one.

    Args:
        dataset: the old one.
        interactions: the new events, none older than the newest of ``dataset``; those that are known, of the same
            time, are passed over.
        items: ids and titles of new items; rows with known ids are passed over.
        out: the new dataset directory; an equal dataset that is there already is left as it is.
        columns: names of columns that are not well known.

    Raises:
        UserError: an event is older than those known or of an unknown item, none is new, the files are wrong, or there
            are too few new events to hold some out.
    """
    catalogue = dataset.items if items is None else _extended(dataset.items, items, columns)
    user, item, time = read_events(interactions, columns)
    known = read_table_file(dataset.path, "interactions")
    _require_newer(time, known["time"], interactions)
    users = read_table_file(dataset.path, "users")["user_id"]
    remedy = "give new items and their titles with --items" if items is None else "add them there, or remove these rows"
    old = pl.DataFrame({"user": users.gather(known["user"]), "item": known["item"], "time": known["time"]})
    item = like(catalogue["item_id"], item, interactions)
    new = pl.DataFrame(
        {
            "user": like(users, user, interactions),
            "item": item_index(item, catalogue, interactions, items or dataset.path, remedy=remedy),
            "time": time.cast(known["time"].dtype) if known["time"].dtype == pl.Float64 else time,
        }
    )
    new = _unknown(new, old, interactions)
    if dataset.manifest.duplicates == "drop":
        new = new.unique(maintain_order=True, keep="first")
    held_out = float(HELD_OUT * new.height / (old.height + new.height))
    split = GlobalTimeSplit(history=dataset.manifest.history, ratios=(1 - 2 * held_out, held_out, held_out))
    log = Log(
        interactions=pl.concat([old, new], how="vertical_relaxed"),
        items=catalogue,
        duplicates=dataset.manifest.duplicates,
    )
    extends = (*dataset.manifest.extends, dataset.content_hash)
    try:
        return prepare(log, split, out, name=dataset.manifest.name, extends=extends)
    except UserError as error:
        if "leaves no" in str(error):
            raise UserError(
                f"{interactions}: {new.height:,} events are too few to hold a tenth out for validation and another for "
                f"test, or are all at the same time; collect more ({error})"
            ) from None
        raise


def _extended(known: pl.DataFrame, items: Path, columns: Columns) -> pl.DataFrame:
    """Put new items under the known ones."""
    table = read_catalogue(items, columns, known=known["item_id"])
    table = table.filter(~table["item_id"].is_in(known["item_id"].implode()))
    shared = [name for name in known.columns if name in table.columns]
    table = table.select(shared).with_columns(
        index=pl.int_range(known.height, known.height + table.height, dtype=pl.Int32)
    )
    return pl.concat([known, table], how="diagonal_relaxed")


def _unknown(new: pl.DataFrame, old: pl.DataFrame, file: Path) -> pl.DataFrame:
    """Leave out what is known: a log that is taken from the newest time on begins with events of that time again."""
    newest = old.filter(pl.col("time") == pl.col("time").max()).cast(new.schema).unique()
    left = new.join(newest, on=new.columns, how="anti", maintain_order="left")
    if not left.height:
        raise UserError(f"{file}: all of its events are known; give newer ones")
    return left


def _require_newer(time: pl.Series, known: pl.Series, file: Path) -> None:
    newest = np.max(known.to_numpy()).item()
    older = np.flatnonzero(time.to_numpy() < newest)
    if len(older):
        first, row = time[int(older[0])], older[0] + 1
        dated = are_dates(read_table(file)[time.name])
        raise UserError(
            f"{file}: row {row}: time {shown_time(first, dated=dated)} is older than the newest event known before "
            f"({shown_time(newest, dated=dated)}); {len(older):,} of {len(time):,} rows are; give the newer ones only"
        )

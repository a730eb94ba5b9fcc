"""A dataset goes on: newer events and newer items join it, and everything that was there keeps its index."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import number_of
from dllm2rec.data.catalogue import read_catalogue, titled
from dllm2rec.data.columns import WELL_KNOWN, Columns
from dllm2rec.data.dataset import Dataset, write_dataset
from dllm2rec.data.directory import Dropped, read_table_file
from dllm2rec.data.log import Log, item_index, read_events
from dllm2rec.data.sources import read_table
from dllm2rec.data.splits import GlobalTimeSplit
from dllm2rec.data.values import are_dates, like, shown_time

HELD_OUT = Fraction(1, 10)


def extend(
    dataset: Dataset, interactions: Path, items: Path | None = None, *, out: Path, columns: Columns = WELL_KNOWN
) -> Dataset:
    """Write the dataset that holds the events of another one and newer ones.

    Events that are known already are passed over, so a whole log that is exported anew will do. What is incomplete is
    treated as it was in ``dataset``.

    It is cut by global time: of the new events the last tenth is for test, the tenth before for validation. All other
    events are for training, also those that the old dataset kept for validation and test. Users, items and events keep
    their indices, and examples their ids, so that labels of the old dataset hold for this one.

    Args:
        dataset: the old one.
        interactions: the new events, none older than the newest of ``dataset``, and any that are known.
        items: ids and titles of new items; rows with known ids are passed over.
        out: the new dataset directory; an equal dataset that is there already is left as it is.
        columns: names of columns; those that are not given are as in the log of ``dataset``.

    Raises:
        UserError: an event that is not known is older than the newest that is, or of an unknown item; none is new, the
            files are wrong, or there are too few new events to hold some out.
    """
    columns = columns.over(dataset.manifest.columns)
    drop = dataset.manifest.dropped is not None
    catalogue, untitled = (dataset.items, 0) if items is None else _extended(dataset.items, items, columns, drop=drop)
    user, item, time = read_events(interactions, columns)
    known = read_table_file(dataset.path, "interactions")
    users = read_table_file(dataset.path, "users")["user_id"]
    remedy = "give new items and their titles with --items" if items is None else "add them there, or remove these rows"
    old = pl.DataFrame({"user": users.gather(known["user"]), "item": known["item"], "time": known["time"]})
    item = like(catalogue["item_id"], item, interactions)
    new = pl.DataFrame(
        {
            "user": like(users, user, interactions),
            "item": item_index(item, catalogue, interactions, items or dataset.path, remedy=remedy, unknown=drop),
            "time": time.cast(known["time"].dtype) if known["time"].dtype == pl.Float64 else time,
        }
    )
    newest = np.max(known["time"].to_numpy()).item()
    incomplete = new.filter(pl.col("item").is_null() & (pl.col("time") >= newest)).height
    if drop:  # what was dropped before, because its item had no title then, stays out
        stays = (pl.col("item") < dataset.num_items) | (pl.col("time") >= newest)
        new = new.with_columns(item=pl.when(stays).then("item"))
    new = _unknown(new, old, interactions, newest=newest, time_column=time.name)
    if dataset.manifest.duplicates == "drop":
        new = new.unique(maintain_order=True, keep="first")
    held_out = float(HELD_OUT * new.height / (old.height + new.height))
    split = GlobalTimeSplit(history=dataset.manifest.history, ratios=(1 - 2 * held_out, held_out, held_out))
    log = Log(
        interactions=pl.concat([old, new], how="vertical_relaxed"),
        items=catalogue,
        columns=columns,
        duplicates=dataset.manifest.duplicates,
        dropped=Dropped(items=untitled, events=incomplete) if drop else None,
    )
    extends = (*dataset.manifest.extends, dataset.content_hash)
    try:
        return write_dataset(log, split, out, name=dataset.manifest.name, extends=extends)
    except UserError as error:
        if "leaves no" in str(error):
            raise UserError(
                f"{interactions}: {number_of(new.height, 'new event')}: too few to hold a tenth out for validation and "
                "another for test, or all at the same time; collect more, and give them together with these"
            ) from None
        raise


def _extended(known: pl.DataFrame, items: Path, columns: Columns, *, drop: bool) -> tuple[pl.DataFrame, int]:
    """Put new items under the known ones; also returns how many have no title and are left out, where some may."""
    listed = read_catalogue(items, columns, known=known["item_id"], untitled=drop)
    listed = listed.filter(~listed["item_id"].is_in(known["item_id"].implode()))
    table = titled(listed)
    shared = [name for name in known.columns if name in table.columns]
    table = table.select(shared).with_columns(
        index=pl.int_range(known.height, known.height + table.height, dtype=pl.Int32)
    )
    return pl.concat([known, table], how="diagonal_relaxed"), listed.height - table.height


def _unknown(rows: pl.DataFrame, old: pl.DataFrame, file: Path, *, newest: float, time_column: str) -> pl.DataFrame:
    """Leave out the rows that are known, or of no item; the others are not older than ``newest``, or an error.

    Times are compared as whole microseconds: by how it was written, a fraction of a second may differ in its last bit.

    Raises:
        UserError: none is left, or one is older.
    """
    same = [pl.col("user"), pl.col("item"), (pl.col("time") * 1e6).round().cast(pl.Int64)]
    numbered = rows.with_row_index("row").drop_nulls("item")
    left = numbered.join(old, on=same, how="anti", maintain_order="left")
    if not left.height:
        raise UserError(f"{file}: all of its events are known; give newer ones")
    older = left.filter(pl.col("time") < newest)
    if older.height:
        row, time = older["row"][0], older["time"][0]
        dated = are_dates(read_table(file)[time_column])
        raise UserError(
            f"{file}: row {row + 1}: time {shown_time(time, dated=dated)} is older than the newest event known before "
            f"({shown_time(newest, dated=dated)}), and this event is not known; {older.height:,} of {rows.height:,} "
            "rows are so; give newer ones only, or prepare a dataset anew"
        )
    return left.drop("row")

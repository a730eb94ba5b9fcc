"""The interaction log: read, checked, and put in order."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import number_of
from dllm2rec.data.catalogue import read_catalogue, titled
from dllm2rec.data.columns import WELL_KNOWN, Columns, find_column
from dllm2rec.data.directory import Dropped, Duplicates, Incomplete
from dllm2rec.data.sources import read_table
from dllm2rec.data.values import ids, seconds

__all__ = ["Columns", "Log", "read_log"]


@dataclass(frozen=True)
class Log:
    """A validated log.

    Attributes:
        interactions: `user` (external id), `item` (Int32 index), `time` (seconds, Int64 or Float64). Users in the order
            of their first row in the file; a user's rows in time order, equal times in the order of the file.
        items: `index` (Int32), `item_id` (external id), `title`, other text columns; row i is item i.
        columns: names that were given.
        duplicates: what happened to rows that repeat another one.
        dropped: what was left out because it was incomplete; None: that would have been refused.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    columns: Columns = WELL_KNOWN
    duplicates: Duplicates = "keep"
    dropped: Dropped | None = None


def read_log(
    interactions: Path,
    items: Path,
    *,
    columns: Columns = WELL_KNOWN,
    duplicates: Duplicates = "keep",
    incomplete: Incomplete = "refuse",
) -> Log:
    """Read and check interactions and items; see `sources` for the formats.

    Ids of the two files are compared as text, so that 12 in one is "12" in the other.

    Args:
        interactions: file with a user, an item and a time a row.
        items: file with an item id and a title a row.
        columns: names of columns that are not well known.
        duplicates: what happens to rows that repeat user, item and time of an earlier row. The same item at another
            time always stays.
        incomplete: what happens to items without a title, and to events of items that ``items`` does not have, or has
            without a title.

    Raises:
        UserError: the input is wrong; the message names the file, the row (from 1, without the header) and the column.
    """
    user, item, time = read_events(interactions, columns)
    drop = incomplete == "drop"
    listed = read_catalogue(items, columns, untitled=drop)
    catalogue = titled(listed)
    if catalogue.height < 2:
        raise UserError(
            f"{items}: {catalogue.height} of {listed.height:,} items have a title; name another --title-column"
        )
    index = item_index(item, catalogue, interactions, items, unknown=drop)
    rows = pl.DataFrame([user.alias("user"), index, time.alias("time")])
    events = rows.drop_nulls("item")
    dropped = Dropped(items=listed.height - catalogue.height, events=rows.height - events.height)
    if duplicates == "drop":
        events = events.unique(maintain_order=True, keep="first")
    _require_a_crowd(events, interactions)
    return Log(
        interactions=order_events(events).drop("user_index"),
        items=catalogue,
        columns=columns,
        duplicates=duplicates,
        dropped=dropped if drop else None,
    )


def read_events(interactions: Path, columns: Columns) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Read the users, the items (external ids) and the times (seconds) of a log, a row each, in the order of the file.

    Raises:
        UserError: a column is missing, or a value is wrong; the message names the file, the row and the column.
    """

    def names(there: list[str]) -> list[str]:
        found = [find_column(there, interactions, field, getattr(columns, field)) for field in ("user", "item", "time")]
        if len(set(found)) < len(found):
            user, item, time = map(repr, found)
            raise UserError(
                f"{interactions}: user {user}, item {item} and time {time} must be three columns; name them with "
                "--user-column, --item-column and --time-column"
            )
        return found

    table = read_table(interactions, choose=names)
    user, item, time = (table[name] for name in names(table.columns))
    return ids(user, interactions), ids(item, interactions), seconds(time, interactions, columns.time_unit)


def order_events(events: pl.DataFrame, *, tie_breaker: pl.Series | None = None) -> pl.DataFrame:
    """Put users in the order of their first row, a user's events in time order, ties by ``tie_breaker``, then by row.

    Adds `user_index` (Int32).
    """
    users = events.select(pl.col("user").unique(maintain_order=True)).with_row_index("user_index")
    indexed = events.join(users, on="user", how="left", maintain_order="left").cast({"user_index": pl.Int32})
    if tie_breaker is None:
        return indexed.sort("user_index", "time", maintain_order=True)
    return indexed.sort(pl.col("user_index"), pl.col("time"), tie_breaker, maintain_order=True)


def item_index(
    item: pl.Series,
    catalogue: pl.DataFrame,
    interactions: Path,
    items: Path,
    *,
    remedy: str = "add them there, or drop these rows with --set incomplete=drop",
    unknown: bool = False,
) -> pl.Series:
    """Return the index of each row's item in the catalogue, Int32; null for ``unknown`` items where some may be.

    Raises:
        UserError: an item is not in it; the first row with one is named, and the remedy. Or none is, in any case.
    """
    known = catalogue.select(pl.col("item_id").cast(pl.String), pl.col("index"))
    rows = pl.DataFrame({"item_id": item.cast(pl.String)}).join(known, on="item_id", how="left", maintain_order="left")
    index = rows["index"]
    missing = index.is_null().arg_true()
    if not len(missing) or (unknown and len(missing) < len(item)):
        return index.alias("item")
    row = int(missing[0])
    message = f"{interactions}: row {row + 1}: {item.name} {item[row]!r} is not in {items}"
    if len(missing) == len(item):
        floats = str(item[row]).endswith(".0")
        hint = "; these ids were written as floats, write them as whole numbers" if floats else ""
        raise UserError(f"{message}, nor is any other ({items.name} has ids such as {catalogue['item_id'][0]!r}){hint}")
    items_missing = item.gather(missing).n_unique()
    extent = f"{number_of(len(missing), 'row')} with {number_of(items_missing, 'unknown item')} in all"
    raise UserError(f"{message} ({extent}); {remedy}")


def _require_a_crowd(events: pl.DataFrame, path: Path) -> None:
    if events["user"].n_unique() < 2:
        raise UserError(f"{path}: holds one user only; a recommender learns from at least two")
    if events["item"].n_unique() < 2:
        raise UserError(f"{path}: all interactions are with one item; there is nothing to choose from")
    if events.height == events["user"].n_unique():
        raise UserError(f"{path}: every user has one event only; an example needs an event and the one after it")

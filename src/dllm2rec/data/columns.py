"""Which column of a file is the user, the item, the time, the title."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dllm2rec.core.errors import UserError, suggest
from dllm2rec.core.settings import Settings

TimeUnit = Literal["s", "ms", "us", "ns"]
Field = Literal["user", "item", "time", "item_id", "title"]

# Compared without case, underscores, hyphens and spaces; the first that a file has is taken.
_ITEM_NAMES = (
    "itemid",
    "item",
    "parentasin",
    "asin",
    "movieid",
    "productid",
    "articleid",
    "bookid",
    "gameid",
    "songid",
)
_KNOWN_NAMES: dict[Field, tuple[str, ...]] = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "visitorid", "sessionid"),
    "item": _ITEM_NAMES,
    "time": (
        "timestamp",
        "time",
        "ratingtimestamp",
        "unixreviewtime",
        "datetime",
        "date",
        "createdat",
        "eventtime",
        "ts",
    ),
    "item_id": (*_ITEM_NAMES, "id"),
    "title": ("title", "movietitle", "itemtitle", "producttitle", "name", "itemname", "productname", "text"),
}


class Columns(Settings):
    """Names of columns; None is found by well-known names such as user_id, movieId, parent_asin, timestamp, title.

    Attributes:
        user: user id, in the interactions.
        item: item id, in the interactions.
        time: time of the event, in the interactions.
        item_id: item id, in the items file.
        title: title, in the items file.
        time_unit: unit of the times where they are numbers; dates and date-times need none.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    item_id: str | None = None
    title: str | None = None
    time_unit: TimeUnit = "s"

    def over(self, known: "Columns") -> "Columns":
        """Return these names, and where none is given here, what ``known`` has."""
        return known.model_copy(update=self.model_dump(exclude_unset=True))


WELL_KNOWN = Columns()


def find_column(columns: Sequence[str], path: Path, field: Field, name: str | None) -> str:
    """Return the one of ``columns`` that holds ``field``: ``name`` if it is given, else the first well-known one.

    Raises:
        UserError: there is none; the message lists the columns that are there and the option that names one.
    """
    option = f"--{field.replace('_', '-')}-column (in a configuration dataset.columns.{field})"
    if name is not None:
        if name in columns:
            return name
        raise UserError(f"{path}: no column '{name}'{suggest(name, columns)}; name the right one with {option}")
    by_key = {_key(column): column for column in reversed(columns)}
    for known in _KNOWN_NAMES[field]:
        if known in by_key:
            return by_key[known]
    if len(columns) == 1:
        raise UserError(
            f"{path}: its one column is {columns[0][:80]!r}; separate the columns of a text file by commas, semicolons "
            "or tabs"
        )
    there = ", ".join(repr(column[:40]) for column in columns[:20])
    raise UserError(f"{path}: no column for the {field.replace('_', ' ')} among {there}; name it with {option}")


def _key(column: str) -> str:
    return re.sub(r"[_\-\s]", "", column).lower()

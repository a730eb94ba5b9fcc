"""The items file becomes the catalogue: index, external id, clean title, any other text."""

from pathlib import Path

import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.core.titles import clean_title
from dllm2rec.data.columns import Columns, find_column
from dllm2rec.data.sources import read_table
from dllm2rec.data.values import ids, like, require, wrong_type


def read_catalogue(
    path: Path, columns: Columns, *, known: pl.Series | None = None, untitled: bool = False
) -> pl.DataFrame:
    """Read the items, in the order of the file.

    Titles lose their HTML entities, then stray white space, and an article at the end comes to the front ("Postino, Il"
    is "Il Postino"), or a language model learns to write the article first of all; equal titles of different items
    stay. Other text and number columns come along as text.

    Args:
        path: the file.
        columns: names of its columns, where they can't be guessed.
        known: ids of items that are there already, where the file adds to them: its ids become of their type, and a row
            of a known item needs no title.
        untitled: let items without a title pass, with an empty one; see `titled`.

    Returns:
        `index` (Int32), `item_id` (as in the file), `title` and the other columns (String).

    Raises:
        UserError: an id is missing, of another type than the known ones, or occurs twice, an item has no title, or
            there is nothing to choose from.
    """
    table = read_table(path)
    id_column = find_column(table.columns, path, "item_id", columns.item_id)
    title_column = find_column(table.columns, path, "title", columns.title)
    item_id = ids(table[id_column], path)
    if known is not None:
        item_id = like(known, item_id, path)
    first = table.select(pl.struct(pl.all()).is_first_distinct()).to_series()  # the same row again is no other item
    distinct = item_id.cast(pl.String).is_first_distinct()
    require(distinct | ~first, item_id, path, "is a duplicate item id; keep one row an item")
    others = [
        column for column in table.columns if column not in {id_column, title_column, "index", "item_id", "title"}
    ]
    plain = [column for column in others if table[column].dtype == pl.String or table[column].dtype.is_numeric()]
    if first.sum() < 2 and known is None:
        raise UserError(f"{path}: holds one item only; there is nothing to choose from")
    listed = pl.DataFrame(
        [
            item_id.alias("item_id"),
            clean_titles(table[title_column], item_id, path, known=item_id if untitled else known),
            *(table[column].cast(pl.String) for column in plain),
        ]
    )
    return listed.filter(first).with_row_index("index").cast({"index": pl.Int32})


def titled(catalogue: pl.DataFrame) -> pl.DataFrame:
    """Leave out the items without a title; the others move up."""
    kept = catalogue.filter(pl.col("title") != "")
    return kept.with_columns(index=pl.int_range(kept.height, dtype=pl.Int32))


def clean_titles(titles: pl.Series, item_id: pl.Series, path: Path, *, known: pl.Series | None) -> pl.Series:
    """Clean titles, see `clean_title`, and insist that every new item has one.

    Raises:
        UserError: the titles are not text, or an item has none.
    """
    if isinstance(titles.dtype, pl.Categorical | pl.Enum):
        titles = titles.cast(pl.String)
    if not (titles.dtype == pl.String or titles.dtype.is_integer()):
        raise wrong_type(titles, path, "is not text")
    clean = pl.Series("title", [clean_title(title or "") for title in titles.cast(pl.String)], dtype=pl.String)
    fine = clean != "" if known is None else (clean != "") | item_id.is_in(known.implode())
    other = ", or drop such items with --set incomplete=drop" if known is None else ""
    require(fine, item_id, path, f"has no title (column '{titles.name}'); give it one, if only its id{other}")
    return clean

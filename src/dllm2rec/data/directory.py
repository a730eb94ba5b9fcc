"""The files of a dataset directory: the manifest `dataset.json` and the tables as Parquet."""

import io
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic import ValidationError

from dllm2rec.core.errors import UserError, first_problem
from dllm2rec.core.files import explain_os_error, read_versioned, write_json
from dllm2rec.core.settings import Settings
from dllm2rec.data.columns import WELL_KNOWN, Columns
from dllm2rec.data.splits import Split, SplitSettings

FORMAT_VERSION = 1
MARKER = "dataset.json"
Duplicates = Literal["keep", "drop"]
Incomplete = Literal["refuse", "drop"]


class Dropped(Settings):
    """What was left out of a log because it was incomplete.

    Attributes:
        items: without a title.
        events: with an item that is not in the catalogue, or was left out itself.
    """

    items: int = 0
    events: int = 0


class DatasetManifest(Settings):
    """What `dataset.json` says.

    Attributes:
        format_version: of the directory.
        content_hash: of ids, titles, interactions and split; equal hashes mean equal examples.
        name: for tables and reports.
        split: settings of the split.
        history: the most items of a history, L.
        num_users: users of the log, also those who give no example.
        num_items: V.
        num_interactions: events of the log.
        counts: examples of each split.
        columns: names of the columns of the log, and the unit of its times, as far as they were given.
        duplicates: what happened to rows of the log that repeat user, item and time of another one.
        dropped: what was left out because it was incomplete; None: that would have been refused.
        extends: content hashes of the datasets that this one goes on from, the oldest first: their items and events
            are the first of this one's, with the same indices and example ids.
    """

    format_version: int
    content_hash: str
    name: str
    split: SplitSettings
    history: int
    num_users: int
    num_items: int
    num_interactions: int
    counts: dict[Split, int]
    columns: Columns = WELL_KNOWN
    duplicates: Duplicates = "keep"
    dropped: Dropped | None = None
    extends: tuple[str, ...] = ()

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        return {
            "items": self.num_items,
            "users": self.num_users,
            "interactions": self.num_interactions,
            "examples": sum(self.counts.values()),
        }


def read_manifest(path: Path) -> DatasetManifest:
    """Read `dataset.json` and check that the tables beside it are whole.

    Raises:
        UserError: not a dataset directory, another format version, or a table is missing or cut.
    """
    if not (path / MARKER).is_file():
        raise UserError(f"{path}: not a dataset directory (no {MARKER} in it); make one with `dllm2rec prepare`")
    value = read_versioned(path / MARKER, FORMAT_VERSION, remedy="remove it and prepare the dataset again")
    manifest = _validate(value, path / MARKER)
    for name, expected in manifest.rows().items():
        found = read_table_file(path, name, pl.len()).item()
        if found != expected:
            raise UserError(
                f"{_file(path, name)}: has {found} rows, not {expected}; remove it and prepare the dataset again"
            )
    return manifest


def read_table_file(path: Path, name: str, *columns: str | pl.Expr) -> pl.DataFrame:
    """Read columns of one table of the dataset at ``path`` (none named: all).

    Raises:
        UserError: the file is missing or damaged.
    """
    file = _file(path, name)
    try:
        return pl.scan_parquet(file, glob=False).select(*(columns or [pl.all()])).collect()
    except FileNotFoundError:
        raise UserError(f"{file}: missing; remove it and prepare the dataset again") from None
    except OSError as error:
        raise explain_os_error(error, file) from error
    except (PolarsError, PanicException):
        raise UserError(f"{file}: damaged or cut short; remove it and prepare the dataset again") from None


def write_files(path: Path, manifest: DatasetManifest, tables: dict[str, pl.DataFrame]) -> None:
    """Write manifest and tables into a new directory. Not atomic: the caller gives a temporary path."""
    path.mkdir()
    for name, table in tables.items():
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        _file(path, name).write_bytes(buffer.getbuffer())  # a full disk is an OSError with its number here
    write_json(path / MARKER, manifest.model_dump(mode="json"))


def _file(path: Path, name: str) -> Path:
    return path / f"{name}.parquet"


def _validate(value: object, file: Path) -> DatasetManifest:
    try:
        return DatasetManifest.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}; remove it and prepare the dataset again") from None

"""Files of interactions or items become tables; the format follows from the suffix."""

import csv
import gzip
import io
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
from polars.exceptions import PanicException, PolarsError

from dllm2rec.core.errors import UserError, first_line
from dllm2rec.core.files import explain_os_error, package_folder

JSON_LINES = (".jsonl", ".ndjson")
Choose = Callable[[list[str]], Sequence[str]]
"""Say which columns are wanted of those that are there."""


def read_table(path: Path, *, choose: Choose = list) -> pl.DataFrame:
    """Read a CSV, TSV, Parquet, JSONL or RecBole atomic file.

    Columns of text formats come as text, exactly as written, so that an id such as ``007`` survives; Parquet and JSONL
    keep their types. Names of RecBole columns lose their ``:type``. Text may be compressed (``.csv.gz``), and
    semicolons or tabs may stand between the fields of a CSV file.

    Args:
        path: the file.
        choose: the columns that are wanted; of a Parquet file, no others are read, which may be large.

    Raises:
        UserError: the file is missing, a directory, of an unknown format, empty, without rows, or does not parse.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a directory; give a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        table = _read(path, choose)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file") from None
    except (EOFError, zlib.error):
        raise UserError(f"{path}: the compressed file is damaged or cut short") from None
    except OSError as error:
        if error.errno is None and _is_packed(path):  # of Polars, which unpacks by itself
            raise UserError(f"{path}: the compressed file is damaged or cut short") from None
        raise explain_os_error(error, path) from error
    if table.height == 0:
        raise UserError(f"{path}: there is no row below the header")
    return table


def require_text(path: Path, name: str) -> None:
    """Check that a column of JSON lines is text or nothing; as a table, it is text as soon as one value is.

    Raises:
        UserError: a value is a number, an object or the like; names its line.
    """
    if _suffix(path) in JSON_LINES and (problem := _bad_json_line(path, text=name)):
        raise UserError(f"{path}: {problem}")


def ml_100k() -> tuple[Path, Path]:
    """Return the interactions and the items of MovieLens-100K, which the package ``recbole`` ships.

    Raises:
        UserError: the package is not installed.
    """
    folder = package_folder("recbole")
    base = folder and folder / "dataset_example" / "ml-100k"
    if base and (base / "ml-100k.inter").is_file() and (base / "ml-100k.item").is_file():
        return base / "ml-100k.inter", base / "ml-100k.item"
    raise UserError("ml-100k: it comes with a package; run `pip install --no-deps recbole==1.2.1`")


def _read(path: Path, choose: Choose) -> pl.DataFrame:
    match _suffix(path):
        case ".csv":
            return _read_delimited(path, separators=",;\t", quote='"')
        case ".tsv":
            return _read_delimited(path, separators="\t,;", quote='"')
        case ".inter" | ".item":
            return _read_recbole(path)
        case ".parquet":
            return _read_parquet(path, choose)
        case suffix if suffix in JSON_LINES:
            return _read_json_lines(path)
        case suffix:
            known = ".csv, .tsv, .parquet, .jsonl, .ndjson, .inter, .item; text with .gz after it, too"
            raise UserError(f"{path}: the format '{suffix}' is unknown (known: {known})")


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _read_delimited(path: Path, *, separators: str, quote: str | None) -> pl.DataFrame:
    """Read delimited text; the first of ``separators`` that splits the header is the one."""
    try:
        header, separator = _header(path, separators, quote)
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise UserError(f"{path}: two columns are named {twice[0]!r}; rename or remove one")
        try:
            table = pl.read_csv(path, separator=separator, quote_char=quote, infer_schema=False, glob=False)
        except (PolarsError, PanicException):
            table = _read_rows(path, separator, quote)
    except UnicodeDecodeError:
        raise UserError(f"{path}: the file is not UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: its header does not parse as delimited text ({error}); mend it") from None
    filled = table.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return table.head(int(filled[-1]) + 1 if len(filled) else 0)  # blank lines at the end are no rows


def _header(path: Path, separators: str, quote: str | None) -> tuple[list[str], str]:
    for separator in separators:
        with _open(path) as file:
            header = next((row for row in _rows(file, separator, quote, strict=False) if row), [])
        if len(header) > 1:
            return header, separator
    return header, separators[0]


def _read_rows(path: Path, separator: str, quote: str | None) -> pl.DataFrame:
    """Read what Polars refuses, such as one quote within a title, if Python's reader makes sense of it."""
    found: list[list[str | None]] = []
    with _open(path) as file:
        rows = _rows(file, separator, quote, strict=True)
        try:
            header = next((row for row in rows if row), [])
            for row in rows:
                if len(row) > len(header):
                    raise UserError(
                        f"{path}: row {len(found) + 1} has {len(row)} fields, the header has {len(header)} "
                        f"(between them stands {separator!r})"
                    )
                found.append([value or None for value in row] + [None] * (len(header) - len(row)))
        except csv.Error as error:
            raise UserError(
                f"{path}: row {len(found) + 1} does not parse as delimited text ({error}); put fields that hold "
                "a quote into quotes and write it twice, or save the file as Parquet"
            ) from None
    names = [name or f"_{place}" for place, name in enumerate(header)]
    return pl.DataFrame(found, schema=dict.fromkeys(names, pl.String), orient="row")


def _rows(file: BinaryIO, separator: str, quote: str | None, *, strict: bool) -> Iterator[list[str]]:
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, strict=strict)


def _open(path: Path) -> BinaryIO:
    """Open a file that may be compressed with gzip."""
    return cast("BinaryIO", gzip.open(path)) if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _read_recbole(path: Path) -> pl.DataFrame:
    table = _read_delimited(path, separators="\t", quote=None)
    names = [column.split(":")[0] for column in table.columns]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have one name in the header {' '.join(table.columns)!r}")
    return table.rename(dict(zip(table.columns, names, strict=True)))


def _read_parquet(path: Path, choose: Choose) -> pl.DataFrame:
    try:
        table = pl.scan_parquet(path, glob=False)
        return table.select(choose(table.collect_schema().names())).collect()
    except (PolarsError, PanicException) as error:
        raise UserError(f"{path}: not a Parquet file, or cut short: {first_line(error)}") from None


def _read_json_lines(path: Path) -> pl.DataFrame:
    try:
        with path.open("rb") as file:  # of a path, brackets would be a pattern
            file.seek(len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0)
            return pl.read_ndjson(file, infer_schema_length=None)
    except (PolarsError, PanicException) as error:
        raise UserError(f"{path}: {_bad_json_line(path) or first_line(error)}") from None


def _bad_json_line(path: Path, *, text: str | None = None) -> str | None:
    """Say what is wrong with the first bad line; ``text`` names what should be text, or null."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line, parse_constant=_refuse) if line.strip() else {}
            except ValueError as error:
                return f"line {number} is not JSON ({error})"
            if not isinstance(value, dict):
                return f"line {number} is not a JSON object"
            if not isinstance(found := value.get(text), str | None):
                return f"line {number}: {text} {json.dumps(found):.80} is no text; write it in quotes, or null"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")

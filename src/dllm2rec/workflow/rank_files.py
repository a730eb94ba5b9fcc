"""Ranks on disk: a Parquet file with a row an example."""

from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path
from dllm2rec.evaluation.ranks import Ranks


def write_ranks(file: Path, ranks: Ranks) -> None:
    """Write ranks as Parquet, atomically."""
    table = pl.DataFrame({"example_id": ranks.example_id, "rank": ranks.rank})
    if ranks.top_items is not None:
        table = table.with_columns(pl.Series("top_items", ranks.top_items))
    with atomic_path(file) as target:
        table.write_parquet(target)


def read_ranks(file: Path) -> Ranks:
    """Read ranks.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        table = pl.read_parquet(file, glob=False)
        top = table["top_items"].to_numpy(writable=True) if "top_items" in table.columns else None
        return Ranks(
            example_id=table["example_id"].to_numpy(writable=True),
            rank=table["rank"].to_numpy(writable=True).astype(np.float64),
            top_items=top,
        )
    except FileNotFoundError:
        raise UserError(f"{file}: missing; run `dllm2rec evaluate` on this run") from None
    except (PolarsError, PanicException, KeyError, ValueError) as error:
        raise UserError(f"{file}: damaged ({error}); remove it and evaluate again") from None

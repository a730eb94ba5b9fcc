"""Verb `recommend` for a whole log: every user's next items, in parts that survive an interruption."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dllm2rec.bundling.bundles import log_columns
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, exclusive, hash_file, read_json, require_absent, write_json
from dllm2rec.core.progress import progress_bar
from dllm2rec.data.columns import WELL_KNOWN, Columns
from dllm2rec.data.log import order_events, read_events
from dllm2rec.serving.recommender import ItemId, Recommendation, Recommender

USERS_AT_ONCE = 10_000
REQUEST = "request.json"


@dataclass(frozen=True, kw_only=True)
class BatchDone:
    """What a batch gave.

    Attributes:
        path: the file: a row a user with `user`, `items`, `scores` (lists, best first) and `fallback`.
        users: in the file.
        fallbacks: of them, those of whose history nothing is known.
        unknown: events with items that the bundle does not know; they were left out.
    """

    path: Path
    users: int
    fallbacks: int
    unknown: int


def read_histories(interactions: Path, columns: Columns = WELL_KNOWN) -> pl.DataFrame:
    """Read a log as histories: `user`, and `items`, a list of ids as text, oldest first; users as they come in the log.

    Raises:
        UserError: the log is wrong; names the file, the row and the column.
    """
    user, item, time = read_events(interactions, columns)
    events = order_events(pl.DataFrame({"user": user, "item": item.cast(pl.String), "time": time}))
    return events.group_by("user", maintain_order=True).agg(pl.col("item").alias("items"))


def recommend_all(
    recommender: Recommender,
    interactions: Path,
    *,
    out: Path,
    k: int = 20,
    exclude_seen: bool = False,
    candidates: Sequence[ItemId] | None = None,
    columns: Columns = WELL_KNOWN,
) -> BatchDone:
    """Recommend to every user of a log.

    Parts of `USERS_AT_ONCE` users are written to ``out`` + `.parts`; asked for the same again after an interruption, it
    goes on with the first part that is missing. Memory holds the histories and one part.

    Args:
        recommender: that answers.
        interactions: the log.
        out: a Parquet file that does not exist yet.
        k: items for each user.
        exclude_seen: leave the items of the history out.
        candidates: recommend only from these.
        columns: names of columns; those that are not given are as in the log of the bundle's dataset.

    Raises:
        UserError: the log is wrong, something is at ``out``, another process is writing it, or the parts there are of
            another request.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k}")
    columns = columns.over(log_columns(recommender.bundle))
    with exclusive(out):
        parts = out.with_name(out.name + ".parts")
        if not parts.exists():
            require_absent(out)
        histories = read_histories(interactions, columns)
        _begin(
            parts,
            {
                "bundle": recommender.version,
                "approximate": recommender.approximate,
                "interactions": hash_file(interactions),
                "columns": columns.model_dump(),
                "k": k,
                "exclude_seen": exclude_seen,
                "candidates": None if candidates is None else list(candidates),
                "users_at_once": USERS_AT_ONCE,
            },
        )
        starts = range(0, histories.height, USERS_AT_ONCE)
        files = [parts / f"part-{number:06d}.parquet" for number in range(len(starts))]
        written = pl.scan_parquet(files, glob=False).drop("unknown")
        if not (out.exists() and all(file.exists() for file in files) and _holds(out, written)):
            require_absent(out)  # else all that is left is to remove the parts
        with progress_bar("recommending", histories.height) as advance:
            for file, start in zip(files, starts, strict=True):
                some = histories.slice(start, USERS_AT_ONCE)
                if not file.exists():
                    found = recommender.recommend(
                        some["items"].to_list(),
                        k=k,
                        exclude_seen=exclude_seen,
                        candidates=candidates,
                    )
                    with atomic_path(file) as target:
                        _table(some["user"], found, recommender).write_parquet(target)
                advance(some.height)
        if not out.exists():
            with atomic_path(out) as target:
                written.sink_parquet(target)
        counts = (
            pl.scan_parquet(files, glob=False)
            .select(pl.len().alias("users"), pl.col("fallback").sum(), pl.col("unknown").sum())
            .collect()
        )
        users, fallbacks, unknown = counts.row(0)
        done = parts.with_name(f".{parts.name}.tmp")
        shutil.rmtree(done, ignore_errors=True)
        parts.replace(done)  # at once: half of the parts would be those of no request
        shutil.rmtree(done)
        return BatchDone(path=out, users=users, fallbacks=fallbacks, unknown=unknown)


def history_of(user: str, interactions: Path, recommender: Recommender, columns: Columns = WELL_KNOWN) -> list[ItemId]:
    """Return the history of one user of a log, whose columns are those of `recommend_all`.

    Raises:
        UserError: the log is wrong, or has no such user.
    """
    histories = read_histories(interactions, columns.over(log_columns(recommender.bundle)))
    rows = histories.filter(pl.col("user").cast(pl.String) == user)
    if rows.height == 0:
        raise UserError(f"{interactions}: no user {user!r} in it")
    found = ((item, recommender.identify(item)) for item in rows["items"].to_list()[0])
    return [item if known is None else known for item, known in found]


def _holds(out: Path, written: pl.LazyFrame) -> bool:
    """Whether a file has the rows that the parts have."""
    try:
        return pl.read_parquet(out).equals(written.collect())
    except (pl.exceptions.PolarsError, OSError):
        return False


def _begin(parts: Path, request: dict[str, object]) -> None:
    if not parts.exists():
        with atomic_path(parts) as target:
            target.mkdir()
            write_json(target / REQUEST, request)
    elif not (parts / REQUEST).is_file() or read_json(parts / REQUEST) != request:
        raise UserError(f"{parts}: holds parts of another request; remove it, or choose another --out")


def _table(users: pl.Series, found: Sequence[Recommendation], recommender: Recommender) -> pl.DataFrame:
    ids = pl.Series(recommender.bundle.ids, strict=False)  # of a type that holds them all, numbers or text
    return pl.DataFrame(
        [
            users.alias("user"),
            pl.Series("items", [one.items for one in found], dtype=pl.List(ids.dtype)),
            pl.Series("scores", [one.scores for one in found], dtype=pl.List(pl.Float32)),
            pl.Series("fallback", [one.fallback for one in found], dtype=pl.Boolean),
            pl.Series("unknown", [len(one.unknown) for one in found], dtype=pl.UInt32),
        ]
    )

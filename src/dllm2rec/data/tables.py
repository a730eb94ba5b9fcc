"""From a log and a split to the tables of a dataset: pure, nothing is written here."""

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data.log import Log, order_events
from dllm2rec.data.splits import SPLITS, Positions, SplitSettings, sample_positions, split_positions
from dllm2rec.data.windows import example_ids, hash_ids, history_windows


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of a dataset.

    Attributes:
        items: `index`, `item_id`, `title`, other text.
        users: `index`, `user_id`, `training_length` (events up to and with the last training target, before sampling).
        interactions: `user`, `item`, `time`, `ordinal`, in (user, time) order.
        examples: `example_id`, `user`, `history` (list, oldest first, at most L), `target`, `time`, `ordinal`, `split`.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    interactions: pl.DataFrame
    examples: pl.DataFrame


def build_tables(log: Log, split: SplitSettings) -> Tables:
    """Split a log.

    Raises:
        UserError: a part of the split is empty.
    """
    events = order_events(log.interactions, tie_breaker=_tie_breaker(log.interactions.height, split.tie_shuffle_seed))
    interactions = events.select(
        user="user_index", item="item", time="time", ordinal=pl.int_range(pl.len(), dtype=pl.Int32).over("user_index")
    )
    user_ids = events["user"].unique(maintain_order=True)
    parts = target_positions(interactions, split)
    users = pl.DataFrame(
        {
            "index": pl.int_range(len(user_ids), dtype=pl.Int32, eager=True),
            "user_id": user_ids,
            "training_length": _training_lengths(interactions, parts["train"], len(user_ids)),
        }
    )
    kept = sample_positions(parts, split)
    examples = build_examples(items=log.items, users=users, interactions=interactions, kept=kept, history=split.history)
    return Tables(items=log.items, users=users, interactions=interactions, examples=examples)


def target_positions(interactions: pl.DataFrame, split: SplitSettings) -> Positions:
    """Find the targets of each part among ``interactions`` in (user, time) order, before sampling.

    Raises:
        UserError: a part is empty.
    """
    length = interactions.select(pl.len().over("user").cast(pl.Int64)).to_series()
    return split_positions(
        ordinal=interactions["ordinal"].cast(pl.Int64).to_numpy(),
        length=length.to_numpy(),
        time=interactions["time"].to_numpy(),
        settings=split,
    )


def build_examples(
    *, items: pl.DataFrame, users: pl.DataFrame, interactions: pl.DataFrame, kept: Positions, history: int
) -> pl.DataFrame:
    """Build the table of examples (see `Tables`), training first, each part in time order."""
    position = np.concatenate([kept[part] for part in SPLITS])
    described = describe(items=items, users=users, interactions=interactions, position=position, history=history)
    return described.with_columns(split=np.repeat(SPLITS, [len(kept[part]) for part in SPLITS]))


def describe(
    *,
    items: pl.DataFrame,
    users: pl.DataFrame,
    interactions: pl.DataFrame,
    position: NDArray[np.int64],
    history: int,
) -> pl.DataFrame:
    """Build examples (see `Tables`, without the split) whose targets stand at ``position`` of the interactions."""
    targets = interactions[position]
    ordinal = targets["ordinal"].cast(pl.Int64).to_numpy()
    windows = history_windows(
        items=interactions["item"].to_numpy(),
        position=position,
        length=ordinal,
        history=history,
        padding=items.height,
    )
    identity = example_ids(
        user=_hashes(users["user_id"])[targets["user"].to_numpy()],
        ordinal=ordinal,
        item=_hashes(items["item_id"])[targets["item"].to_numpy()],
    )
    return pl.DataFrame(
        {
            "example_id": identity,
            "user": targets["user"],
            "history": _unpad(windows, ordinal),
            "target": targets["item"],
            "time": targets["time"],
            "ordinal": targets["ordinal"],
        }
    )


def content_hash(*, items: pl.DataFrame, users: pl.DataFrame, interactions: pl.DataFrame, split: SplitSettings) -> str:
    """Hash what the examples follow from: ids and titles, interactions in order, and the split; not the other text.

    Ids count as text, so the same log read from CSV and from Parquet has the same hash. The order of users in the file
    counts: it settles ties in the paper's split, and their rows are what folds and texts about users go by.

    Returns:
        16 hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256(split.model_dump_json().encode())
    for texts in (items["item_id"], items["title"], users["user_id"]):
        digest.update(_text_bytes(texts))
    for name, dtype in (("user", "<i4"), ("item", "<i4"), ("time", "<f8")):
        digest.update(interactions[name].to_numpy().astype(dtype).tobytes())
    return digest.hexdigest()[:16]


def _text_bytes(texts: pl.Series) -> bytes:
    text = texts.cast(pl.String)
    lengths = text.str.len_bytes().to_numpy().astype("<u4").tobytes()
    return len(text).to_bytes(8, "little") + lengths + "".join(text).encode()


def _hashes(external: pl.Series) -> NDArray[np.uint64]:
    return hash_ids(external.cast(pl.String))


def _tie_breaker(count: int, seed: int | None) -> pl.Series | None:
    return None if seed is None else pl.Series("tie", numpy_generator(seed, "ties").random(count))


def _training_lengths(interactions: pl.DataFrame, train: NDArray[np.int64], num_users: int) -> NDArray[np.int32]:
    lengths = np.zeros(num_users, dtype=np.int32)
    targets = interactions[train]
    np.maximum.at(lengths, targets["user"].to_numpy(), targets["ordinal"].to_numpy() + 1)
    return lengths


def _unpad(windows: NDArray[np.int32], length: NDArray[np.int64]) -> pl.Series:
    """`[N, L]` padded on the left to lists without the padding."""
    frame = pl.DataFrame({"history": pl.Series(windows).arr.to_list(), "length": length})
    return frame.select(pl.col("history").list.tail(pl.col("length"))).to_series()

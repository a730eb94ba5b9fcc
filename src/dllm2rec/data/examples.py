"""What a dataset hands out: examples of one split, and training sequences.

External ids are whatever the user's log holds (text or integers); inside, items are ``0 .. num_items - 1`` in the order
of the catalogue, so that index ``i`` is row ``i`` of every item matrix and column ``i`` of every score matrix. Padding
is the index after the last item. Histories are padded on the left: the most recent item is always in the last column.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dllm2rec.core.arrays import place_in_group
from dllm2rec.data.windows import history_windows

DECAY = 0.8
"""Weight of an item of a history relative to the next newer one, where similarities to each are summed."""
RARE = 0.01
"""Share of repeated targets below which repeats count as exceptions."""

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, kw_only=True)
class Past:
    """All that each user chose before a target, however long ago.

    Attributes:
        items: `[M]` int32, of all users back to back, in time order.
        target: `[N]` int64, where the target stands among them.
        length: `[N]` int64, how many items of the same user stand before it.
    """

    items: NDArray[np.int32]
    target: NDArray[np.int64]
    length: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Past":
        """Return that of the examples at ``rows``."""
        return Past(items=self.items, target=self.target[rows], length=self.length[rows])

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the row of an example and an item before its target, for all of them: `[P]` each, in order of rows."""
        row = np.repeat(np.arange(len(self.target)), self.length)
        return row, self.items[np.repeat(self.target - self.length, self.length) + place_in_group(self.length)]

    def holds(self, items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Say which of some items `[N, K]` the user of each example chose before the target, `[N, K]`."""
        first = self.target - self.length
        # one a user; events of users without examples follow all that the user before them is asked for
        begins = np.unique(first)
        stride = int(max(self.items.max(initial=0), items.max(initial=0))) + 1
        owner = np.searchsorted(begins, np.arange(len(self.items)), side="right") - 1
        pairs, earliest = np.unique(owner * stride + self.items, return_index=True)
        held = np.zeros(items.shape, np.bool_)
        for start in range(0, len(items), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            asked = np.searchsorted(begins, first[part])[:, None] * stride + items[part]
            place = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
            held[part] = (pairs[place] == asked) & (earliest[place] < self.target[part, None])
        return held

    @classmethod
    def join(cls, parts: Sequence["Past"]) -> "Past":
        """Return that of examples of one dataset back to back."""
        return cls(
            items=parts[0].items,
            target=np.concatenate([part.target for part in parts]),
            length=np.concatenate([part.length for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of one split, aligned by row, in time order.

    Attributes:
        example_id: `[N]` int64, stable over files, splits and runs.
        user: `[N]` int32, row of the dataset's users.
        history: `[N, L]` int32, padded on the left, the newest item in the last column.
        target: `[N]` int32, the item that came next.
        time: `[N]` int64 or float64, seconds, of the target.
        num_items: V, which is also the padding index.
        past: what stands before the target, beyond the history, too; None where nothing more is known.
    """

    example_id: NDArray[np.int64]
    user: NDArray[np.int32]
    history: NDArray[np.int32]
    target: NDArray[np.int32]
    time: NDArray[np.int64] | NDArray[np.float64]
    num_items: int
    past: Past | None = None

    def __len__(self) -> int:
        return len(self.example_id)

    def known(self, rows: slice = slice(None)) -> NDArray[np.int32]:
        """Return all that the users of some examples chose before the target, `[n, L or more]`, padded as histories."""
        history = self.history[rows]
        if self.past is None or not len(history):
            return history
        length = self.past.length[rows]
        return history_windows(
            items=self.past.items,
            position=self.past.target[rows],
            length=length,
            history=max(history.shape[1], int(length.max())),
            padding=self.num_items,
        )

    @property
    def longest(self) -> int:
        """The most items that `known` gives for one example."""
        read = int(self.history.shape[1])
        return read if self.past is None else max(read, int(self.past.length.max(initial=0)))

    @property
    def repeats(self) -> NDArray[np.bool_]:
        """`[N]`, whether the target is an item of the history."""
        found: NDArray[np.bool_] = (self.history == self.target[:, None]).any(axis=1)
        return found

    @property
    def repeats_are_rare(self) -> bool:
        """Whether less than `RARE` of the targets are items of their history."""
        return len(self) > 0 and bool(self.repeats.mean() < RARE)

    @property
    def returns_are_rare(self) -> bool:
        """Whether less than `RARE` of the targets were chosen by their user before, however long ago."""
        if self.past is None or not self.repeats_are_rare:
            return self.repeats_are_rare
        return bool(self.past.holds(self.target[:, None]).mean() < RARE)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Examples":
        """Return the examples at ``rows`` (indices or a mask), in that order."""
        return Examples(
            example_id=self.example_id[rows],
            user=self.user[rows],
            history=self.history[rows],
            target=self.target[rows],
            time=self.time[rows],
            num_items=self.num_items,
            past=None if self.past is None else self.past.take(rows),
        )

    def batches(self, size: int) -> Iterator["Examples"]:
        """Yield them in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    @classmethod
    def join(cls, parts: Sequence["Examples"]) -> "Examples":
        """Return examples of one dataset back to back."""
        pasts = [part.past for part in parts if part.past is not None]
        return cls(
            example_id=np.concatenate([part.example_id for part in parts]),
            user=np.concatenate([part.user for part in parts]),
            history=np.concatenate([part.history for part in parts]),
            target=np.concatenate([part.target for part in parts]),
            time=np.concatenate([part.time for part in parts]),
            num_items=parts[0].num_items,
            past=Past.join(pasts) if len(pasts) == len(parts) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """One item sequence a user, back to back: user ``u`` has ``items[offsets[u] : offsets[u + 1]]``.

    Attributes:
        items: `[M]` int32.
        times: `[M]` int64 or float64, seconds, of each event.
        offsets: `[U + 1]` int64, from 0 to M.
    """

    items: NDArray[np.int32]
    times: NDArray[np.int64] | NDArray[np.float64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, users: NDArray[np.bool_]) -> "Sequences":
        """Return the same with the sequences of all users outside the mask `[U]` empty."""
        length = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(np.where(users, length, 0))])
        kept = np.repeat(users, length)
        return Sequences(items=self.items[kept], times=self.times[kept], offsets=offsets)

    def in_time(self) -> NDArray[np.int32]:
        """Return the items of all users in time order, `[M]`."""
        return self.items[np.argsort(self.times, kind="stable")]

    def __getitem__(self, user: int) -> NDArray[np.int32]:
        if not 0 <= user < len(self):
            raise IndexError(f"no user {user} among {len(self)}")
        return self.items[self.offsets[user] : self.offsets[user + 1]]


def pad_histories(histories: pl.Series, width: int, padding: int) -> NDArray[np.int32]:
    """Turn lists of 1 to ``width`` items, oldest first, into `[N, width]`, padded on the left."""
    length = histories.list.len().to_numpy()
    padded = np.full((len(histories), width), padding, dtype=np.int32)
    padded[np.arange(width) >= width - length[:, None].astype(np.int64)] = histories.explode().to_numpy()
    return padded

"""History windows and the stable identity of an example, without a loop over rows."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def history_windows(
    *, items: NDArray[np.int32], position: NDArray[np.int64], length: NDArray[np.int64], history: int, padding: int
) -> NDArray[np.int32]:
    """Cut the items before each target.

    Args:
        items: `[M]` item of every interaction, user after user, in time order.
        position: `[N]` row of each target in `items`.
        length: `[N]` how many earlier interactions the target's user has.
        history: width L of a window.
        padding: what fills the left of a short history.

    Returns:
        `[N, L]`, the item just before the target in the last column.
    """
    offset = np.arange(-history, 0)
    index = position[:, None] + offset
    return np.where(-offset <= length[:, None], items[np.maximum(index, 0)], np.int32(padding))


def hash_ids(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Hash external ids, written as text, to 64 bits each (BLAKE2b)."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def example_ids(*, user: NDArray[np.uint64], ordinal: NDArray[np.int64], item: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Mix the hashes of a user and a target item with the target's ordinal to a 63-bit id.

    The id depends on nothing else: neither the split, nor the other users, nor, where no two events of a user have the
    same time, the order of the file. With a million examples two share an id with probability 6e-8.

    Args:
        user: `[N]` from `hash_ids`.
        ordinal: `[N]` place of the target in its user's sequence, from 0.
        item: `[N]` from `hash_ids`.

    Returns:
        `[N]` ids, none negative.
    """
    mixed = _mix(_mix(_mix(user) + item) + ordinal.astype(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014), a bijection: every output bit depends on every input bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))

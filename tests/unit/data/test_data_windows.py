import hashlib

import numpy as np
import polars as pl

from dllm2rec.data.examples import pad_histories
from dllm2rec.data.windows import example_ids, hash_ids, history_windows

MASK = (1 << 64) - 1


def test_windows_stop_at_the_user_and_are_padded_on_the_left() -> None:
    items = np.array([5, 6, 7, 8, 1, 2], dtype=np.int32)  # users of 4 and 2 events

    windows = history_windows(
        items=items, position=np.array([3, 1, 5, 0]), length=np.array([3, 1, 1, 0]), history=2, padding=9
    )

    assert windows.tolist() == [[6, 7], [9, 5], [9, 1], [9, 9]]
    assert windows.dtype == np.int32


def test_window_wider_than_any_history() -> None:
    windows = history_windows(
        items=np.array([1, 2], dtype=np.int32), position=np.array([1]), length=np.array([1]), history=5, padding=9
    )

    assert windows.tolist() == [[9, 9, 9, 9, 1]]


def test_padding_lists() -> None:
    padded = pad_histories(pl.Series([[1], [2, 3], [4, 5, 6]], dtype=pl.List(pl.Int32)), 3, 9)

    assert padded.tolist() == [[9, 9, 1], [9, 2, 3], [4, 5, 6]]


def test_hash_of_ids_is_blake2b() -> None:
    expected = int.from_bytes(hashlib.blake2b("é".encode(), digest_size=8).digest(), "little")

    assert hash_ids(["é"]).tolist() == [expected]


def splitmix(value: int) -> int:
    """One step of SplitMix64 in Python's integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_example_ids_by_slow_arithmetic() -> None:
    user, item = 0xFFFF_FFFF_FFFF_FFFE, 12345
    expected = splitmix((splitmix((splitmix(user) + item) & MASK) + 7) & MASK) >> 1

    found = example_ids(
        user=np.array([user], dtype=np.uint64), ordinal=np.array([7]), item=np.array([item], dtype=np.uint64)
    )

    assert found.tolist() == [expected]


def test_example_ids_never_change() -> None:
    """Knowledge on disk is joined by these ids: a change of the formula would orphan it."""
    ids = example_ids(user=hash_ids(["u1", "u2"]), ordinal=np.array([3, 4]), item=hash_ids(["i1", "i2"]))

    assert ids.tolist() == [5562817890779101338, 1304441559810716705]

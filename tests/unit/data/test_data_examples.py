from dataclasses import replace

import numpy as np
import pytest

from dllm2rec.data import Examples
from dllm2rec.data.examples import Past


def _examples(history: list[list[int]], target: list[int]) -> Examples:
    n = len(target)
    return Examples(
        example_id=np.arange(n),
        user=np.zeros(n, np.int32),
        history=np.array(history, np.int32).reshape(n, 2),
        target=np.array(target, np.int32),
        time=np.zeros(n, np.int64),
        num_items=9,
    )


def test_a_repeat_is_a_target_of_its_own_history() -> None:
    examples = _examples([[1, 2], [3, 4], [9, 5]], [2, 5, 5])
    assert examples.repeats.tolist() == [True, False, True]


@pytest.mark.parametrize(("repeats", "rare"), [(0, True), (1, False), (50, False)])
def test_repeats_are_rare_below_a_hundredth(repeats: int, rare: bool) -> None:
    examples = _examples([[1, 2]] * 100, [1] * repeats + [3] * (100 - repeats))
    assert examples.repeats_are_rare is rare


def test_nothing_is_not_rare() -> None:
    assert _examples([], []).repeats_are_rare is False
    assert replace(_examples([], []), past=_past(3).take(np.array([], int))).returns_are_rare is False


def _past(users: int) -> Past:
    """Each user has 1, 2, 3, 1: the last is asked for, and was the first."""
    items = np.tile(np.array([1, 2, 3, 1], np.int32), users)
    return Past(items=items, target=np.arange(3, 4 * users, 4), length=np.full(users, 3))


def test_what_came_back_after_long_is_no_repeat_of_what_is_read() -> None:
    examples = replace(_examples([[2, 3]] * 3, [1] * 3), past=_past(3))
    assert examples.repeats_are_rare
    assert not examples.returns_are_rare
    assert replace(examples, past=None).returns_are_rare  # nobody knows better


@pytest.mark.parametrize("seed", range(20))
def test_what_a_past_holds_is_what_stands_before_the_target(seed: int) -> None:
    draw = np.random.default_rng(seed)
    length = draw.integers(1, 8, size=12)
    offsets = np.concatenate([[0], np.cumsum(length)])
    items = draw.integers(0, 6, size=offsets[-1]).astype(np.int32)
    user = draw.integers(0, 12, size=9)  # some have several examples, some none
    ordinal = draw.integers(0, length[user])
    asked = draw.integers(0, 8, size=(9, 5)).astype(np.int32)
    past = Past(items=items, target=offsets[user] + ordinal, length=ordinal)
    before = [items[offsets[one] :][:count] for one, count in zip(user, ordinal, strict=True)]
    expected = [np.isin(row, held) for row, held in zip(asked, before, strict=True)]
    np.testing.assert_array_equal(past.holds(asked), expected)

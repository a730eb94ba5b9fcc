import numpy as np
import pytest

from dllm2rec.data import Examples


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

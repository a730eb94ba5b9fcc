import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dllm2rec.evaluation.significance import holm, paired_permutation_test

VALUES = hnp.arrays(np.float64, 12, elements=st.floats(0, 1).map(lambda x: round(x, 3)))


@given(VALUES, VALUES)
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_two_systems_does_not_matter(a: np.ndarray, b: np.ndarray) -> None:
    forth = paired_permutation_test(a, b, generator=np.random.default_rng(0), permutations=200)
    back = paired_permutation_test(b, a, generator=np.random.default_rng(0), permutations=200)
    assert forth == back
    assert 0 < forth <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(deadline=None)
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_the_permutation_test_enumerates_a_small_case() -> None:
    # three differences of one sign: 2 of 8 sign patterns are as extreme
    p_value = paired_permutation_test(
        np.array([0.1, 0.2, 0.4]), np.zeros(3), generator=np.random.default_rng(0), permutations=40_000
    )
    assert p_value == pytest.approx(0.25, abs=0.01)


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    generator = np.random.default_rng(5)
    p_values = [
        paired_permutation_test(*generator.normal(size=(2, 30)), generator=generator, permutations=300)
        for _ in range(200)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_a_real_difference_is_found_and_no_difference_is_certain() -> None:
    generator = np.random.default_rng(0)
    a = generator.random(300)
    assert paired_permutation_test(a, a + generator.normal(0.1, 0.1, 300), generator=generator) < 0.001
    assert paired_permutation_test(a, a, generator=generator) == 1.0
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_permutation_test(a, a[1:], generator=generator)


def test_the_examples_of_a_user_are_flipped_together() -> None:
    """Repeating every pair of a user adds no evidence; without users it would."""
    generator = np.random.default_rng(3)
    a, b = generator.normal(0.25, 1, 40), generator.normal(0, 1, 40)
    user = np.arange(40)
    alone = paired_permutation_test(a, b, generator=np.random.default_rng(0))
    assert alone == paired_permutation_test(a, b, user=user + 7, generator=np.random.default_rng(0))
    many = (np.tile(a, 9), np.tile(b, 9))
    together = paired_permutation_test(*many, user=np.tile(user, 9), generator=np.random.default_rng(0))
    assert together == pytest.approx(alone, abs=0.02)
    assert paired_permutation_test(*many, generator=np.random.default_rng(0)) < alone / 3

"""Systems that are trained: a difference has to be beyond what users and seeds do."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.evaluation.significance import Difference, paired_permutation_test, trained_test

USERS, EACH = 300, 2
USER = np.repeat(np.arange(USERS), EACH)


def trained(rng: np.random.Generator, seeds: int, *, mean: float, by_seed: float) -> NDArray[np.float64]:
    """A metric of trainings whose means differ by their seed, on examples that are alike within a user."""
    by_user = np.repeat(np.random.default_rng(0).normal(scale=0.3, size=USERS), EACH)
    return mean + by_user + rng.normal(scale=by_seed, size=(seeds, 1)) + rng.normal(scale=0.2, size=(seeds, len(USER)))


def differences(*, difference: float, by_seed: float, seeds: int = 3, trials: int = 100) -> list[Difference]:
    rng = np.random.default_rng(1)
    return [
        trained_test(
            trained(rng, seeds, mean=difference, by_seed=by_seed),
            trained(rng, seeds, mean=0.0, by_seed=by_seed),
            user=USER,
            generator=numpy_generator(number),
            permutations=400,
        )
        for number in range(trials)
    ]


def p_values(*, difference: float, by_seed: float) -> NDArray[np.float64]:
    return np.array([one.p_value for one in differences(difference=difference, by_seed=by_seed)])


def test_seeds_alone_are_no_difference() -> None:
    assert (p_values(difference=0.0, by_seed=0.05) < 0.05).mean() <= 0.08
    rng = np.random.default_rng(1)
    means = [[trained(rng, 3, mean=0.0, by_seed=0.05).mean(axis=0) for _ in range(2)] for _ in range(100)]
    found = [
        paired_permutation_test(a, b, user=USER, generator=numpy_generator(0), permutations=400) < 0.05
        for a, b in means
    ]
    assert np.mean(found) > 0.4  # users alone take it for one


def test_a_difference_beyond_users_and_seeds_is_found() -> None:
    assert (p_values(difference=0.2, by_seed=0.03) < 0.05).mean() > 0.95


def test_without_noise_of_seeds_users_decide() -> None:
    assert (p_values(difference=0.04, by_seed=0.0) < 0.05).mean() > 0.9
    assert (p_values(difference=0.0, by_seed=0.0) < 0.05).mean() <= 0.08
    assert (p_values(difference=0.04, by_seed=0.05) < 0.05).mean() < 0.3


def test_trained_once_is_the_permutation_test() -> None:
    rng = np.random.default_rng(2)
    a, b = (trained(rng, 1, mean=mean, by_seed=0.0) for mean in (0.02, 0.0))
    assert trained_test(a, b, user=USER, generator=numpy_generator(0)).p_value == paired_permutation_test(
        a[0], b[0], user=USER, generator=numpy_generator(0)
    )


def test_equal_systems_differ_in_nothing() -> None:
    same = np.ones((3, 4))
    assert trained_test(same, same, generator=numpy_generator(0)) == (1.0, (0.0, 0.0))


def test_one_user_tells_nothing_of_others() -> None:
    better = trained_test(np.ones((2, 3)), np.zeros((1, 3)), user=np.zeros(3, np.int64), generator=numpy_generator(0))
    assert better == (1.0, (-1.0, 1.0))


@pytest.mark.parametrize(("seeds", "by_seed"), [(1, 0.0), (3, 0.0), (3, 0.05), (5, 0.05)])
def test_the_interval_holds_the_difference_as_often_as_it_says(seeds: int, by_seed: float) -> None:
    found = differences(difference=0.1, by_seed=by_seed, seeds=seeds, trials=200)
    held = [low <= 0.1 <= high for _, (low, high) in found]
    assert 0.9 <= np.mean(held) <= 0.99


def test_the_interval_is_the_normal_one_on_a_large_sample_and_knows_whose_examples_they_are() -> None:
    a = np.random.default_rng(1).normal(0.3, 1.0, (1, 2000))
    none, error = np.zeros_like(a), 1.96 * a.std() / np.sqrt(a.size)
    _, alone = trained_test(a, none, generator=numpy_generator(0), permutations=10)
    assert alone == pytest.approx((a.mean() - error, a.mean() + error), abs=1e-3)
    again = np.tile(np.arange(a.size), 9)
    _, together = trained_test(
        np.tile(a, 9), np.tile(none, 9), user=again, generator=numpy_generator(0), permutations=10
    )
    assert together == pytest.approx(alone)


def test_users_count_by_their_examples() -> None:
    """The mean is over examples: whoever has three counts three times."""
    values, user = np.array([[1.0, 1.0, 1.0, 0.0]]), np.array([5, 5, 5, 2])
    low, high = trained_test(values, np.zeros((1, 4)), user=user, generator=numpy_generator(0)).interval
    assert (low + high) / 2 == pytest.approx(0.75)


def test_the_p_value_over_seeds_by_hand() -> None:
    """No user differs from another, so all variance is that of three seeds against one: a t-test of two freedoms."""
    users = np.arange(40)
    means = np.array([0.30, 0.34, 0.41])
    ours, theirs = np.repeat(means[:, None], 40, axis=1), np.full((1, 40), 0.2)
    found = trained_test(ours, theirs, user=users, generator=numpy_generator(0, "t"))
    expected = stats.ttest_1samp(means, 0.2).pvalue
    assert 0.01 < expected < 0.1
    assert found.p_value == pytest.approx(expected)

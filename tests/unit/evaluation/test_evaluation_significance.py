"""Systems that are trained: a difference has to be beyond what users and seeds do."""

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.evaluation.significance import paired_permutation_test, trained_test

USERS, EACH = 300, 2
USER = np.repeat(np.arange(USERS), EACH)


def trained(rng: np.random.Generator, seeds: int, *, mean: float, by_seed: float) -> NDArray[np.float64]:
    """A metric of trainings whose means differ by their seed, on examples that are alike within a user."""
    by_user = np.repeat(np.random.default_rng(0).normal(scale=0.3, size=USERS), EACH)
    return mean + by_user + rng.normal(scale=by_seed, size=(seeds, 1)) + rng.normal(scale=0.2, size=(seeds, len(USER)))


def p_values(*, difference: float, by_seed: float, seeds: int = 3, trials: int = 100) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    return np.array(
        [
            trained_test(
                trained(rng, seeds, mean=difference, by_seed=by_seed),
                trained(rng, seeds, mean=0.0, by_seed=by_seed),
                user=USER,
                generator=numpy_generator(number),
                permutations=400,
            )
            for number in range(trials)
        ]
    )


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
    assert trained_test(a, b, user=USER, generator=numpy_generator(0)) == paired_permutation_test(
        a[0], b[0], user=USER, generator=numpy_generator(0)
    )


def test_equal_systems_differ_in_nothing() -> None:
    same = np.ones((3, 4))
    assert trained_test(same, same, generator=numpy_generator(0)) == 1.0
    assert trained_test(np.ones((2, 1)), np.ones((1, 1)), generator=numpy_generator(0)) == 1.0

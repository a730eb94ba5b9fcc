"""The mixture of teachers: by hand, against slow loops and against an optimiser that knows nothing of it."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from dllm2rec.knowledge import Labels
from dllm2rec.knowledge.confidence import Shares
from dllm2rec.teachers.mixture import LEAST_WEIGHT, Opinion, fit_weights, improve_weights, mix, opinion

V = 15


def likelihood(share: np.ndarray, labelled: np.ndarray, weights: np.ndarray) -> float:
    """The mean log-probability of the true items, example by example."""
    total = 0.0
    for own, known in zip(share.tolist(), labelled.tolist(), strict=True):
        present = [k for k in range(len(weights)) if known[k]]
        mass = sum(weights[k] for k in present)
        total += math.log(sum(weights[k] / mass * own[k] for k in present))
    return total / len(share)


def examples(seed: int, teachers: int, *, coverage: float, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that teachers give the true items, and which examples they labelled: at least one each."""
    generator = np.random.default_rng(seed)
    share = generator.beta(0.4, 3.0 + np.arange(teachers), (count, teachers)) + 1e-4
    labelled = generator.random((count, teachers)) < coverage
    labelled[np.arange(count), generator.integers(teachers, size=count)] = True
    return share, labelled


def test_one_step_by_hand() -> None:
    """Weights 1/4 and 3/4: both labelled the first example, one each of the others.

    The first counts .25 * .6 / (.25 * .6 + .75 * .2) = 1/2 for each. The second counts 1 for the first teacher, and
    the other was asked 3 times in vain; the third counts 1 for the second, and the first was asked 1/3 times.
    """
    share = np.array([[0.6, 0.2], [0.1, 9.0], [9.0, 0.1]])
    labelled = np.array([[True, True], [True, False], [False, True]])
    found = improve_weights(share, labelled, np.array([0.25, 0.75]))
    first, second = 0.5 + 1 + 1 / 3, 0.5 + 3 + 1
    np.testing.assert_allclose(found, [first / (first + second), second / (first + second)])


@pytest.mark.parametrize("teachers", [2, 4])
@pytest.mark.parametrize("coverage", [1.0, 0.6], ids=["whole", "partial"])
def test_the_weights_are_those_of_an_optimiser(teachers: int, coverage: float) -> None:
    share, labelled = examples(teachers, teachers, coverage=coverage)

    def loss(logits: np.ndarray) -> float:
        weights = np.exp(np.append(logits, 0.0))
        return -likelihood(share, labelled, weights / weights.sum())

    best = minimize(loss, np.zeros(teachers - 1), method="BFGS", options={"gtol": 1e-9}).x
    expected = np.exp(np.append(best, 0.0))
    found = fit_weights(share, labelled)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-5)
    assert likelihood(share, labelled, found) == pytest.approx(-loss(best), abs=1e-9)


def test_the_order_of_teachers_does_not_matter_nor_what_an_absent_one_would_say() -> None:
    share, labelled = examples(5, 3, coverage=0.6)
    found, order = fit_weights(share, labelled), np.array([2, 0, 1])
    np.testing.assert_allclose(fit_weights(share[:, order], labelled[:, order]), found[order], atol=1e-9)
    np.testing.assert_array_equal(fit_weights(np.where(labelled, share, 0.77), labelled), found)


def test_teachers_that_never_meet_keep_equal_weights() -> None:
    labelled = np.array([[True, False], [False, True], [False, True]])
    np.testing.assert_allclose(fit_weights(np.full((3, 2), 0.3), labelled), [0.5, 0.5])


def test_a_teacher_that_is_never_right_keeps_a_trace() -> None:
    weights = fit_weights(np.tile([0.5, 0.0], (4, 1)), np.ones((4, 2), np.bool_))
    assert 0 < weights[1] <= 2 * LEAST_WEIGHT
    assert weights.sum() == pytest.approx(1)


def test_two_teachers_by_hand() -> None:
    """Four items. Both speak of the first example, the second alone of the other; item 0 is tied with 2 there."""
    first = Opinion(
        place=np.array([0]),
        shares=Shares(items=np.array([[0, 1]]), listed=np.array([[0.6, 0.2]]), outside=np.array([0.1])),
    )
    second = Opinion(
        place=np.array([0, 1]),
        shares=Shares(
            items=np.array([[3, 0], [2, 0]]),
            listed=np.array([[0.5, 0.3], [0.4, 0.4]]),
            outside=np.array([0.1, 0.1]),
        ),
    )
    mixed = mix([first, second], np.array([0.25, 0.75]), target=np.array([2, 2]), depth=2, num_items=4)
    # item 0: .25 * .6 + .75 * .3, item 1: .25 * .2 + .75 * .1, item 2: .1, item 3: .25 * .1 + .75 * .5
    np.testing.assert_array_equal(mixed.items, [[3, 0], [0, 2]])
    np.testing.assert_allclose(mixed.share, [[0.4, 0.375], [0.4, 0.4]])
    np.testing.assert_allclose(mixed.target_share, [0.1, 0.4])


@pytest.mark.parametrize("seed", range(3))
def test_mixing_is_the_loop_over_the_whole_catalogue(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count, depth = 20, 4
    depths, temperatures, weights = (5, 4, 6), (0.5, 2.0, 1.0), np.array([0.2, 0.5, 0.3])
    rows = np.where(
        generator.random((3, count)) < 0.6, generator.permuted(np.tile(np.arange(count), (3, 1)), axis=1), -1
    )
    rows[seed, (rows < 0).all(axis=0)] = 0
    labels = [teacher(generator, count, size) for size in depths]
    target = generator.integers(0, V, count)
    said = [
        opinion(one, row, temperature=temperature, num_items=V)
        for one, row, temperature in zip(labels, rows, temperatures, strict=True)
    ]
    mixed = mix(said, weights, target=target, depth=depth, num_items=V)
    for b in range(count):
        present = [k for k in range(3) if rows[k, b] >= 0]
        chance = np.zeros(V)
        for k in present:
            items, distances = labels[k].ranked_items[rows[k, b]], labels[k].distances[rows[k, b]].astype(float)
            everywhere = np.full(V, distances[-1])
            everywhere[items] = distances
            scaled = np.exp(-everywhere / temperatures[k])
            chance += weights[k] / weights[present].sum() * scaled / scaled.sum()
        listed = sorted({int(item) for k in present for item in labels[k].ranked_items[rows[k, b]]})
        best = sorted(listed, key=lambda item: (-round(chance[item], 12), item))[:depth]
        np.testing.assert_array_equal(mixed.items[b], best)
        np.testing.assert_allclose(mixed.share[b], chance[best], rtol=1e-5)
        assert mixed.target_share[b] == pytest.approx(chance[target[b]], rel=1e-5)
        assert chance[best].min() >= np.delete(chance, listed).max(initial=0) - 1e-12


def teacher(generator: np.random.Generator, count: int, depth: int) -> Labels:
    return Labels(
        example_id=np.arange(count),
        ranked_items=np.argsort(generator.random((count, V)), axis=1)[:, :depth].astype(np.int32),
        distances=np.sort(generator.exponential(size=(count, depth)), axis=1).astype(np.float32),
        target_distance=np.zeros(count, np.float32),
        generated_text=[""] * count,
    )

"""Distances as probabilities: the temperature, the shares, and whether they are as good as they say."""

import math

import numpy as np
import pytest

from dllm2rec.knowledge.confidence import calibration_error, likeliest_temperature, reliability, shares


def test_the_likeliest_temperature_is_where_the_answers_were_drawn() -> None:
    """Of 30 items the 22 farthest are all as far as the last of the 8 that are listed."""
    generator = np.random.default_rng(0)
    distances = np.sort(generator.normal(40, 3, (4000, 8)), axis=1)
    everything = np.concatenate([distances, np.repeat(distances[:, -1:], 22, axis=1)], axis=1)
    logits = -everything / 2.5
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    target = np.array([generator.choice(30, p=row) for row in shares])
    items = np.tile(np.arange(8), (4000, 1))
    found = likeliest_temperature(ranked_items=items, distances=distances, target=target, num_items=30)
    assert found == pytest.approx(2.5, rel=0.1)


def test_the_likeliest_temperature_of_teachers_that_say_nothing() -> None:
    items, target = np.array([[0, 1], [2, 3]]), np.array([9, 9])
    wrong = likeliest_temperature(
        ranked_items=items, distances=np.array([[1.0, 2.0], [1.0, 4.0]]), target=target, num_items=10
    )
    assert wrong > 10  # never right: as flat as can be
    same = likeliest_temperature(ranked_items=items, distances=np.ones((2, 2)), target=target, num_items=10)
    assert 0 < same < math.inf


def test_an_item_at_an_infinite_distance_is_one_outside_the_list() -> None:
    items, target = np.array([[4, 0, 1], [5, 2, 3], [6, 7, 8]]), np.array([0, 9, 6])
    nowhere = np.array([[np.inf, 1.0, 2.0], [np.inf, 1.0, 4.0], [np.inf] * 3])
    found = likeliest_temperature(ranked_items=items, distances=nowhere, target=target, num_items=10)
    shorter = likeliest_temperature(
        ranked_items=items[:2, 1:], distances=nowhere[:2, 1:], target=target[:2], num_items=10
    )
    assert found == pytest.approx(shorter)
    assert likeliest_temperature(ranked_items=items[2:], distances=nowhere[2:], target=target[2:], num_items=10) == 1


def test_shares_by_hand() -> None:
    """Four items of which two are listed, at temperature 2; the others are as far as the second."""
    found = shares(
        ranked_items=np.array([[3, 1]]),
        distances=np.array([[1.0, 1.0 + 2 * math.log(2)]]),
        temperature=2.0,
        num_items=4,
    )
    np.testing.assert_allclose(found.listed, [[0.4, 0.2]])
    np.testing.assert_allclose(found.outside, [0.2])
    np.testing.assert_allclose([found.of(np.array([item])) for item in (3, 1, 0)], [[0.4], [0.2], [0.2]])


def test_lists_that_are_not_in_the_order_of_their_distances_have_the_same_shares() -> None:
    items, distances = np.array([[4, 2, 7]]), np.array([[0.1, 0.9, 0.3]])
    given = {"temperature": 0.7, "num_items": 9}
    found = shares(ranked_items=items, distances=distances, **given)
    ordered = shares(ranked_items=items[:, [0, 2, 1]], distances=distances[:, [0, 2, 1]], **given)
    np.testing.assert_allclose(found.listed[:, [0, 2, 1]], ordered.listed)
    assert found.outside == ordered.outside == found.listed.min()


def test_shares_sum_to_one_and_the_likeliest_temperature_makes_the_answers_likeliest() -> None:
    generator = np.random.default_rng(0)
    items = np.argsort(generator.random((200, 30)), axis=1)[:, :8]
    distances = np.sort(generator.exponential(3, (200, 8)), axis=1)
    target = np.where(generator.random(200) < 0.5, items[:, 0], generator.integers(0, 30, 200))

    def likelihood(temperature: float) -> float:
        found = shares(ranked_items=items, distances=distances, temperature=temperature, num_items=30)
        np.testing.assert_allclose(found.listed.sum(axis=1) + 22 * found.outside, 1)
        return float(np.log(found.of(target)).mean())

    best = likeliest_temperature(ranked_items=items, distances=distances, target=target, num_items=30)
    assert likelihood(best) > max(likelihood(0.99 * best), likelihood(1.01 * best))


@pytest.mark.parametrize("count", [3, 10, 57])
def test_the_calibration_error_is_that_of_a_loop(count: int) -> None:
    generator = np.random.default_rng(count)
    confidence = generator.permutation(np.linspace(0.05, 0.9, count))
    hit = generator.random(count) < 0.4
    ranked = sorted(zip(confidence.tolist(), hit.tolist(), strict=True))
    sizes = [count // 10 + (number < count % 10) for number in range(10)]
    expected, start = 0.0, 0
    for size in sizes:
        part = ranked[start : start + size]
        start += size
        if part:
            gap = sum(one for one, _ in part) / size - sum(right for _, right in part) / size
            expected += abs(gap) * size / count
    assert calibration_error(confidence, hit) == pytest.approx(expected)


def test_a_teacher_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    confidence = np.repeat([0.2, 0.5, 1.0, 0.0], 10)
    hit = np.concatenate([np.arange(10) < 10 * share for share in (0.2, 0.5, 1.0, 0.0)])
    assert calibration_error(confidence, hit, bins=4) == pytest.approx(0)
    assert calibration_error(np.zeros(4), np.ones(4, np.bool_)) == 1.0


def test_bins_of_reliability_expect_equally_many_hits() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random((500, 20)) ** 4 / 5
    hit = generator.random(probability.shape) < probability
    found = reliability(probability, hit, bins=5)
    assert len(found) == 5
    edges = np.sort(probability.ravel())
    total = edges.sum() / 5
    start = 0
    for mean, share in found:
        count = round(total / mean)
        part = edges[start : start + count]
        assert part.mean() == pytest.approx(mean, rel=0.02)
        assert share == pytest.approx(mean, rel=0.5)
        start += count


def test_nothing_is_reliable() -> None:
    assert reliability(np.empty((0, 3)), np.empty((0, 3), bool)) == []

"""Distances as probabilities: the temperature, the shares, and whether they are as good as they say."""

import math

import numpy as np
import pytest

from dllm2rec.knowledge.confidence import likeliest_temperature


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

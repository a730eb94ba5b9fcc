"""The references against slow loops that follow their descriptions."""

import math

import numpy as np
import pytest

from dllm2rec.data import Sequences
from dllm2rec.teachers.ease import EASESettings, fit_ease
from dllm2rec.teachers.references import ItemKNNSettings, TextSettings, fit_item_knn, fit_text

NUM_ITEMS, LENGTH = 15, 6


def random_sequences(generator: np.random.Generator) -> list[list[int]]:
    return [generator.integers(NUM_ITEMS, size=generator.integers(0, 12)).tolist() for _ in range(12)]


def random_histories(generator: np.random.Generator) -> np.ndarray:
    history = generator.integers(NUM_ITEMS, size=(20, LENGTH)).astype(np.int32)
    for row in history:
        row[: generator.integers(0, LENGTH)] = NUM_ITEMS
    return history


def slow_similarity(users: list[list[int]], steps: int, backward: float) -> np.ndarray:
    together = np.zeros((NUM_ITEMS, NUM_ITEMS))
    count = [0] * NUM_ITEMS
    for user in users:
        for place, item in enumerate(user):
            count[item] += 1
            for step in range(1, steps + 1):
                if place + step < len(user):
                    together[item, user[place + step]] += 1 / step
                    together[user[place + step], item] += backward / step
    for i in range(NUM_ITEMS):
        for j in range(NUM_ITEMS):
            together[i, j] /= math.sqrt(count[i] + 1) * math.sqrt(count[j] + 1)
    return together


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("steps", "backward", "decay"), [(5, 0.5, 0.8), (1, 1.0, 1.0), (20, 0.0, 0.3)])
def test_item_knn(seed: int, steps: int, backward: float, decay: float) -> None:
    generator = np.random.default_rng(seed)
    users, history = random_sequences(generator), random_histories(generator)
    similarity = slow_similarity(users, steps, backward)
    expected = np.zeros((len(history), NUM_ITEMS))
    for row, items in enumerate(history):
        for age, item in enumerate(reversed(items.tolist())):
            if item != NUM_ITEMS:
                expected[row] += decay**age * similarity[item]
    fitted = fit_item_knn(
        ItemKNNSettings(steps=steps, backward=backward, decay=decay),
        Sequences(
            items=np.array([item for user in users for item in user], np.int32),
            times=np.arange(sum(map(len, users))),
            offsets=np.cumsum([0, *map(len, users)]),
        ),
        num_items=NUM_ITEMS,
    )
    np.testing.assert_allclose(fitted.scores(history), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_text_neighbours(seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors, history = generator.normal(size=(NUM_ITEMS, 4)) + 2, random_histories(generator)
    mean = vectors.mean(axis=0)
    deviation = [
        math.sqrt(sum((value - mean[column]) ** 2 for value in vectors[:, column]) / NUM_ITEMS) for column in range(4)
    ]

    def cosine(i: int, j: int) -> float:
        a, b = (vectors[i] - mean) / deviation, (vectors[j] - mean) / deviation
        return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))

    expected = np.zeros((len(history), NUM_ITEMS))
    for row, items in enumerate(history):
        for age, item in enumerate(reversed(items.tolist())):
            if item != NUM_ITEMS:
                expected[row] += [0.8**age * cosine(item, other) for other in range(NUM_ITEMS)]
    fitted = fit_text(TextSettings(), vectors.astype(np.float32), num_items=NUM_ITEMS)
    np.testing.assert_allclose(fitted.scores(history), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("regularisation", "decay"), [(0.5, 0.8), (10.0, 1.0), (100.0, 0.3)])
def test_ease(seed: int, regularisation: float, decay: float) -> None:
    generator = np.random.default_rng(seed)
    users, history = random_sequences(generator), random_histories(generator)
    gram = regularisation * np.eye(NUM_ITEMS)
    for user in users:
        for i in set(user):
            for j in set(user):
                gram[i, j] += 1
    inverse = np.linalg.inv(gram)
    seen = {item for user in users for item in user}
    expected = np.zeros((len(history), NUM_ITEMS))
    for row, items in enumerate(history):
        for age, item in enumerate(reversed(items.tolist())):
            for other in seen - {item}:
                if item in seen:
                    expected[row, other] -= decay**age * inverse[item, other] / inverse[other, other]
    fitted = fit_ease(
        EASESettings(regularisation=regularisation, decay=decay),
        Sequences(
            items=np.array([item for user in users for item in user], np.int32),
            times=np.arange(sum(map(len, users))),
            offsets=np.cumsum([0, *map(len, users)]),
        ),
        num_items=NUM_ITEMS,
    )
    np.testing.assert_allclose(fitted.scores(history), expected, rtol=1e-5, atol=1e-6)

"""The losses against loops in NumPy, written from the formulas."""

import math

import numpy as np
import pytest
import torch

from dllm2rec.losses.bce import binary_cross_entropy
from dllm2rec.losses.dros import log_sum_exp_squares, popularity_weights, robust_terms
from dllm2rec.losses.softmax import softmax_cross_entropy

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 1.5, (7, 23))
TARGET = RNG.integers(0, 23, 7)
POPULARITY = RNG.integers(0, 60, 23)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bce(dtype: torch.dtype) -> None:
    negatives = RNG.integers(0, 23, (7, 3))
    terms = []
    for s in range(7):
        terms.append([-math.log(sigmoid(SCORES[s, TARGET[s]]))])
        for j in negatives[s]:
            terms[-1].append(-math.log(1 - sigmoid(SCORES[s, j])))
    scores = torch.tensor(SCORES, dtype=dtype)
    positive = scores[torch.arange(7), torch.from_numpy(TARGET)]
    drawn = scores.gather(1, torch.from_numpy(negatives))
    assert binary_cross_entropy(positive, drawn).item() == pytest.approx(sum(map(sum, terms)) / 7, rel=1e-5)
    mean = binary_cross_entropy(positive, drawn, reduction="mean").item()
    assert mean == pytest.approx(np.mean(terms), rel=1e-5)


def test_softmax() -> None:
    total = 0.0
    for s in range(7):
        total -= math.log(math.exp(SCORES[s, TARGET[s]]) / sum(math.exp(SCORES[s, j]) for j in range(23)))
    scores = torch.tensor(SCORES, dtype=torch.float32)
    found = softmax_cross_entropy(scores, torch.eye(23), torch.from_numpy(TARGET), scores_at_once=50)
    assert found.item() == pytest.approx(total / 7, rel=1e-5)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_dros(beta: float) -> None:
    everything = sum(count + 1 for count in POPULARITY)
    p = [((count + 1) / everything) ** 0.05 for count in POPULARITY]
    expected = np.zeros((7, 23))
    for s in range(7):
        for y in range(23):
            inner = sum(math.exp(p[j] * SCORES[s, j] ** 2 / beta) for j in range(23))
            inner -= math.exp(p[y] * SCORES[s, y] ** 2 / beta)
            inner += math.exp(p[y] * (SCORES[s, y] - 1) ** 2 / beta)
            expected[s, y] = math.log(inner)
    scores, scale = torch.tensor(SCORES, dtype=torch.float32), popularity_weights(torch.from_numpy(POPULARITY)) / beta
    items = torch.arange(23).expand(7, 23)
    total = log_sum_exp_squares(scores, scale)
    found = robust_terms(scores, items, scale, chosen=scores, total=total)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)

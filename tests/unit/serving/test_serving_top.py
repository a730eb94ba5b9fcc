"""Exact top-k: against sorting, in blocks, with ties."""

import numpy as np
import pytest

from dllm2rec.serving import top
from dllm2rec.serving.top import top_items

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 7, 50])
@pytest.mark.parametrize("at_once", [1, 120, 10_000])
def test_it_is_what_a_stable_sort_gives(k: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "SCORES_AT_ONCE", at_once)
    hidden = RNG.integers(-2, 3, (9, 3)).astype(np.float32)  # many ties
    weight, bias = (RNG.integers(-2, 3, shape).astype(np.float32) for shape in ((50, 3), (50,)))
    banned = [RNG.choice(50, 4, replace=False) for _ in range(9)]
    scores = hidden @ weight.T + bias
    for row, out in enumerate(banned):
        scores[row, out] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    items, found = top_items(hidden, weight, k=k, bias=bias, banned=banned)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, expected, axis=1))


@pytest.mark.parametrize("k", [1, 5, 64])
@pytest.mark.parametrize("size", [63, 64, 65, 200, 257])
@pytest.mark.parametrize("spread", [2, 1000])
def test_the_columns_lose_no_item(k: int, size: int, spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "MIN_COLUMNS", 8)
    monkeypatch.setattr(top, "COLUMNS_PER_ITEM", 2)
    hidden, weight = np.ones((1, 1), np.float32), RNG.integers(0, spread, (size, 1)).astype(np.float32)
    k = min(k, size)
    items, _ = top_items(hidden, weight, k=k)
    np.testing.assert_array_equal(items[0], np.argsort(-weight[:, 0], kind="stable")[:k])

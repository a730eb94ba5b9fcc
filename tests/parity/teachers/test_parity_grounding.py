"""Grounding in blocks against a slow loop (Cui et al. 2024, eq. 4)."""

import numpy as np
import pytest

from dllm2rec.teachers import grounding
from dllm2rec.teachers.grounding import Grounding


def slow_rank(query: np.ndarray, vectors: np.ndarray, counts: np.ndarray, depth: int) -> tuple[list[int], list[float]]:
    distances = []
    for vector in vectors:
        total = 0.0
        for a, b in zip(query, vector, strict=True):
            total += (float(a) - float(b)) ** 2
        distances.append(total)
    order = sorted(range(len(vectors)), key=lambda i: (round(distances[i], 4), -counts[i], i))
    return order[:depth], [distances[i] for i in order[:depth]]


@pytest.mark.parametrize("block", [3, 7, 32768])
@pytest.mark.parametrize("depth", [1, 5, 23])
def test_blocks_agree_with_the_slow_loop(block: int, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounding, "_ITEM_BLOCK", block)
    monkeypatch.setattr(grounding, "_QUERY_BLOCK", 4)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(23, 6)).astype(np.float32)
    vectors[[4, 9, 20]] = vectors[1]  # four items of one title
    titles = [str(item) if item not in (4, 9, 20) else "1" for item in range(23)]
    counts = generator.integers(0, 5, size=23)
    counts[[1, 4, 9, 20]] = [2, 7, 2, 9]
    queries = generator.normal(size=(11, 6)).astype(np.float32)
    ground = Grounding(vectors, titles=titles, train_counts=counts)
    ranked = ground.rank(queries, depth=depth)
    for row, query in enumerate(queries):
        items, distances = slow_rank(query, vectors, counts, depth)
        assert ranked.ranked_items[row].tolist() == items
        np.testing.assert_allclose(ranked.distances[row], distances, rtol=1e-4, atol=1e-5)
    targets = generator.integers(0, 23, size=11).astype(np.int32)
    expected = [
        slow_rank(query, vectors[[item]], counts[[item]], 1)[1][0] for query, item in zip(queries, targets, strict=True)
    ]
    np.testing.assert_allclose(ground.distance(queries, targets), expected, rtol=1e-5)


def test_duplicates_of_a_title_stand_together_the_more_popular_first() -> None:
    vectors = np.array([[0.0], [5.0], [0.0], [0.0]], np.float32)
    ground = Grounding(vectors, titles=["a", "b", "a", "a"], train_counts=np.array([1, 0, 3, 1]))
    assert ground.rank(np.array([[0.1]], np.float32), depth=4).ranked_items.tolist() == [[2, 0, 3, 1]]


@pytest.mark.parametrize("depth", [0, 4])
def test_a_depth_beyond_the_catalogue_is_refused(depth: int) -> None:
    ground = Grounding(np.eye(3, dtype=np.float32), titles=list("abc"), train_counts=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"within 1\.\.3"):
        ground.rank(np.zeros((1, 3), np.float32), depth=depth)


def test_a_state_that_is_not_finite_is_refused_and_no_text_is_no_label() -> None:
    ground = Grounding(np.eye(3, dtype=np.float32), titles=list("abc"), train_counts=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        ground.rank(np.full((1, 3), np.nan, np.float32), depth=2)
    assert ground.rank(np.empty((0, 3), np.float32), depth=2).ranked_items.shape == (0, 2)

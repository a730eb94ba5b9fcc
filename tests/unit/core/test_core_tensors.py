"""The best of scores, whatever is equal among them."""

import numpy as np
import pytest
import torch

from dllm2rec.core.tensors import best_items


@pytest.mark.parametrize("levels", [2, 4, 1000])
@pytest.mark.parametrize("k", [1, 7, 19, 20])
def test_best_items_are_a_stable_sort(levels: int, k: int) -> None:
    scores = np.random.default_rng(levels).integers(0, levels, size=(60, 20)).astype(np.float32)
    scores[:30, ::3] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = best_items(torch.from_numpy(scores), k)
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_ties_are_settled_by_the_index() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert best_items(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert best_items(scores, 5).tolist() == [[1, 2, 4, 3, 0], [0, 1, 2, 3, 4]]

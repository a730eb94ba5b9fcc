import math

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.distillation.weights import (
    combine,
    consistency_weights,
    item_confidence,
    kth_largest,
    position_weights,
    sequence_confidence,
)


def test_position_weights_by_hand() -> None:
    first, second = math.exp(-0.5), math.exp(-1.0)  # ranks 1 and 2, beta 2
    expected = torch.tensor([first, second]) / (first + second)
    torch.testing.assert_close(position_weights(torch.tensor([1, 2]), beta=2.0), expected)


def test_position_weights_refuse_a_temperature_of_zero_and_no_list() -> None:
    with pytest.raises(ValueError, match="beta must be above 0"):
        position_weights(torch.tensor([1, 2]), beta=0.0)
    with pytest.raises(ValueError, match="ranks is empty"):
        position_weights(torch.zeros(0), beta=1.0)


def test_confidence_of_a_sequence_by_hand() -> None:
    # e^0 and e^-log 3: shares 3/4 and 1/4; two sequences and lists of 5, so that the mean is 1/5
    found = sequence_confidence(torch.tensor([0.0, math.log(3.0)]), size=5)
    torch.testing.assert_close(found, torch.tensor([0.75, 0.25]) * 2 / 5)
    assert found.mean().item() == pytest.approx(1 / 5)


def test_confidence_of_an_item_by_hand() -> None:
    found = item_confidence(torch.tensor([[0.0, math.log(3.0)], [7.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25], [0.5, 0.5]]))


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], []])
def test_confidence_refuses_what_is_no_distance(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="distances"):
        sequence_confidence(torch.tensor(bad), size=2)
    with pytest.raises(ValueError, match="distances"):
        item_confidence(torch.tensor([bad]))
    with pytest.raises(ValueError, match="must be"):
        item_confidence(torch.zeros(3))


def test_consistency_by_hand() -> None:
    scores = torch.tensor([[5.0, 1.0, 4.0, 3.0], [0.0, 0.0, 2.0, 1.0]])
    candidates = torch.tensor([[0, 3], [2, 0]])  # the top two are items 0 and 2; then 2 and 3
    assert consistency_weights(scores, candidates).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_an_item_that_ties_with_the_last_is_consistent() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert consistency_weights(scores, torch.tensor([[2, 3]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("columns", [3, 128, 2000, 2560, 2561, 5000])
def test_the_kth_largest_is_found_in_blocks_as_in_one_piece(columns: int) -> None:
    scores = torch.randn(7, columns, generator=torch_generator(0, "x"))
    scores[0, -1] = 50.0  # in the columns left over
    scores[1, :20] = 10.0 + torch.arange(min(20, columns))  # all in one block
    scores[2] = 1.0
    for k in (1, 3, 9):
        if k <= columns:
            assert torch.equal(kth_largest(scores, k), scores.sort(dim=1, descending=True).values[:, k - 1])


def test_the_kth_largest_needs_k_columns() -> None:
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be between 1 and 3"):
            kth_largest(torch.zeros(2, 3), k)


def test_combination_by_hand() -> None:
    parts = {
        "position": torch.tensor([0.7, 0.3]),
        "confidence": torch.tensor([[0.5], [2.0]]),
        "consistency": torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        "gamma_position": 0.3,
        "gamma_confidence": 0.5,
        "gamma_consistency": 0.1,
    }
    expected = torch.tensor([[0.21 + 0.25 + 0.1, 0.09 + 0.25], [0.21 + 1.0, 0.09 + 1.0]])
    torch.testing.assert_close(combine(**parts, renormalise=False), expected)
    found = combine(**parts, renormalise=True)
    torch.testing.assert_close(found, expected / expected.sum(dim=1, keepdim=True))


def test_a_list_whose_weights_are_all_zero_stays_zero() -> None:
    nothing = combine(
        position=torch.tensor([0.7, 0.3]), confidence=torch.zeros(1, 1), consistency=None,
        gamma_position=0.0, gamma_confidence=0.5, gamma_consistency=0.0, renormalise=True,
    )  # fmt: skip
    assert nothing.tolist() == [[0.0, 0.0]]

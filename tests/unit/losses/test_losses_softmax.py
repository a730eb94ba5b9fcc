import math

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.losses.softmax import SoftmaxSettings, softmax_cross_entropy


def test_softmax_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    expected = -(math.log(1 / 4) + math.log(4 / 5)) / 2
    assert softmax_cross_entropy(scores, torch.tensor([0, 0])).item() == pytest.approx(expected)


def test_items_that_do_not_compete_count_for_nothing_and_get_no_gradient() -> None:
    scores = torch.randn(3, 5, generator=torch_generator(0, "x")).requires_grad_()
    competes = torch.tensor([True, False, True, True, False])
    loss = softmax_cross_entropy(scores, torch.tensor([0, 1, 2]).apply_(lambda i: [0, 2, 3][i]), competes=competes)
    torch.testing.assert_close(loss, softmax_cross_entropy(scores[:, competes], torch.tensor([0, 1, 2])))
    loss.backward()
    assert (scores.grad[:, ~competes] == 0).all()
    assert (scores.grad[:, competes] != 0).all()


def test_softmax_gradient() -> None:
    scores = torch.randn(4, 5, dtype=torch.float64, generator=torch_generator(0, "x")).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: softmax_cross_entropy(s, torch.tensor([0, 4, 2, 2])), scores)


def test_softmax_refuses_what_it_can_not_use() -> None:
    target = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="not finite"):
        softmax_cross_entropy(torch.tensor([[1.0, math.nan], [0.0, 0.0]]), target)
    with pytest.raises(ValueError, match="must be"):
        softmax_cross_entropy(torch.zeros(3, 4), target)
    with pytest.raises(ValueError, match="empty"):
        softmax_cross_entropy(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"competes must be \[3\]"):
        softmax_cross_entropy(torch.zeros(2, 3), target, competes=torch.ones(1, dtype=torch.bool))
    with pytest.raises(ValueError, match="not among the items that compete"):
        softmax_cross_entropy(torch.zeros(2, 3), target, competes=torch.tensor([True, False, True]))


def test_all_items_compete_unless_said_otherwise() -> None:
    assert SoftmaxSettings().candidates == "all"

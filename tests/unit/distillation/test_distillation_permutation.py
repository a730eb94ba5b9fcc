import math

import pytest
import torch

from dllm2rec.distillation.permutation import NO_ITEM, permutation_losses, score_permutations


def test_two_interesting_items_and_one_other_by_hand() -> None:
    found = permutation_losses(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0]]))
    first = math.log(math.exp(2) + math.exp(1) + 1) - 2
    second = math.log(math.exp(1) + 1) - 1
    assert found.item() == pytest.approx(first + second, rel=1e-6)


def test_the_order_of_the_interesting_items_matters_and_that_of_the_others_does_not() -> None:
    top, rest = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[0.5, -0.3]])
    assert permutation_losses(top.flip(1), rest) > permutation_losses(top, rest)
    torch.testing.assert_close(permutation_losses(top, rest.flip(1)), permutation_losses(top, rest))


def test_an_item_that_is_not_there_changes_nothing_wherever_it_stands() -> None:
    top, rest = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, -0.3]])
    expected = permutation_losses(top, rest)
    for place in range(3):
        values = torch.cat([top[:, :place], torch.tensor([[9.0]]), top[:, place:]], dim=1).requires_grad_()
        kept = torch.arange(3).unsqueeze(0) != place
        found = permutation_losses(values, rest, kept=kept)
        torch.testing.assert_close(found.detach(), expected)
        found.sum().backward()
        assert values.grad is not None
        assert values.grad[0, place] == 0
        assert torch.isfinite(values.grad).all()
    below = torch.tensor([[True, False]])
    torch.testing.assert_close(
        permutation_losses(top, rest, below=below), permutation_losses(top, torch.tensor([[0.5]]))
    )


def test_without_others_and_without_any_item() -> None:
    top = torch.tensor([[2.0, 1.0]], requires_grad=True)
    alone = permutation_losses(top, torch.zeros(1, 0))
    assert alone.item() == pytest.approx(math.log(math.exp(2) + math.exp(1)) - 2, rel=1e-6)
    nothing = permutation_losses(top, torch.zeros(1, 0), kept=torch.zeros(1, 2, dtype=torch.bool))
    assert nothing.item() == 0.0
    nothing.sum().backward()
    assert torch.equal(top.grad, torch.zeros(1, 2))


def test_scores_far_apart_stay_finite() -> None:
    found = permutation_losses(torch.tensor([[500.0, -500.0]]), torch.tensor([[0.0]]))
    assert found.item() == pytest.approx(500.0)


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    top, rest = (torch.randn(3, n, dtype=torch.float64, generator=generator).requires_grad_() for n in (4, 2))
    kept = torch.tensor([[True, False, True, True]] * 3)
    assert torch.autograd.gradcheck(lambda a, b: permutation_losses(a, b, kept=kept), (top, rest))


@pytest.mark.parametrize(
    ("top", "rest", "message"),
    [
        (torch.zeros(2), torch.zeros(2, 1), "interesting must be"),
        (torch.zeros(2, 0), torch.zeros(2, 1), "interesting is empty"),
        (torch.full((2, 2), math.nan), torch.zeros(2, 1), "not finite"),
        (torch.zeros(2, 2), torch.full((2, 1), math.inf), "not finite"),
        (torch.zeros(2, 2), torch.zeros(3, 1), r"uninteresting must be \[2, \*\]"),
    ],
)
def test_scores_that_do_not_fit(top: torch.Tensor, rest: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        permutation_losses(top, rest)


def test_nobody_is_left_out_when_items_are_scored() -> None:
    class Indices:
        num_items = 9

        def score_items(self, hidden: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            return items / 4

    hidden = torch.zeros(1, 1)
    found = score_permutations(Indices(), hidden, torch.tensor([[8, NO_ITEM, 4]]), torch.tensor([[NO_ITEM, 2]]))
    torch.testing.assert_close(found, permutation_losses(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5]])))

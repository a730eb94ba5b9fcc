import math

import pytest
import torch
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import SharedScorer
from dllm2rec.losses.bce import BCELoss
from dllm2rec.losses.dros import DROSLoss, RobustTerm, log_sum_exp_squares, popularity_weights, robust_terms


def terms(scores: Tensor, items: Tensor, scale: Tensor) -> Tensor:
    total = log_sum_exp_squares(scores, scale)
    return robust_terms(scores, items, scale, chosen=scores.gather(1, items), total=total)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch_generator(0, "x"))


class Linear:
    """A scorer with given weights that counts how often it scored everything."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.calls, self.num_items = weight, 0, len(weight)

    def scores(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        return hidden @ self.weight.T

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        return (self.weight[items] @ hidden.unsqueeze(2)).squeeze(2)


def test_popularity_weights_by_hand() -> None:
    # (0 + 1, 1 + 1, 4 + 1) / 8
    expected = torch.tensor([(1 / 8) ** 0.05, (2 / 8) ** 0.05, (5 / 8) ** 0.05])
    torch.testing.assert_close(popularity_weights(torch.tensor([0, 1, 4])), expected)


def test_robust_term_by_hand() -> None:
    # scores (1, 2), weights (1, 0.5), target 0: log(e^(0.5 * 4) + e^(1 * 0)) = log(e^2 + 1)
    found = terms(torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 1]]), torch.tensor([1.0, 0.5]))
    # target 1: log(e^1 + e^(0.5 * 1))
    expected = torch.tensor([[math.log(math.exp(2) + 1), math.log(math.exp(1) + math.exp(0.5))]])
    torch.testing.assert_close(found, expected)


def test_large_scores_neither_overflow_nor_cancel() -> None:
    # the target's e^(40^2) is all of the naive sum; what is left is e^(39^2)
    scores, scale = torch.zeros(1, 100), torch.ones(100)
    scores[0, 3] = 40.0
    assert terms(scores, torch.tensor([[3]]), scale).item() == pytest.approx(39.0**2, rel=1e-6)
    assert terms(scores, torch.tensor([[5]]), scale).item() == pytest.approx(40.0**2, rel=1e-6)


@pytest.mark.parametrize("size", [0.5, 2.0, 6.0, 30.0])
def test_robust_terms_agree_with_the_exact_value_at_any_size_of_the_scores(size: float) -> None:
    scores, scale = random(6, 30) * size, torch.rand(30, generator=torch_generator(1, "p")).double()
    items = torch.stack([torch.randperm(30, generator=torch_generator(i, "i"))[:5] for i in range(6)])
    items[:, 0] = scores.abs().argmax(dim=1)
    expected = torch.stack(
        [
            torch.stack(
                [
                    torch.logsumexp(
                        torch.cat([(scale * s**2)[torch.arange(30) != i], (scale[i] * (s[i] - 1) ** 2)[None]]), dim=0
                    )
                    for i in row
                ]
            )
            for s, row in zip(scores, items, strict=True)
        ]
    )
    torch.testing.assert_close(terms(scores, items, scale), expected)
    torch.testing.assert_close(terms(scores.float(), items, scale.float()), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [0.5, 6.0])
def test_gradient_of_the_robust_terms(size: float) -> None:
    scores, scale = (random(4, 12) * size).requires_grad_(), torch.rand(12, generator=torch_generator(1, "p")).double()
    items = torch.stack([scores.detach().abs().argmax(dim=1), torch.tensor([1, 2, 3, 4])], dim=1)
    weights = torch.rand(4, 2, generator=torch_generator(2, "w")).double()
    (terms(scores, items, scale) * weights).sum().backward()
    step = 1e-6
    for row, column in [(0, 0), (1, 5), (3, 11), (2, int(items[2, 0])), (3, 4)]:
        nudge = torch.zeros_like(scores).index_put(
            (torch.tensor(row), torch.tensor(column)), torch.tensor(step).double()
        )
        with torch.no_grad():
            change = (terms(scores + nudge, items, scale) - terms(scores - nudge, items, scale)) * weights
        assert scores.grad[row, column].item() == pytest.approx(change.sum().item() / (2 * step), rel=1e-5, abs=1e-8)


def test_going_back_twice_is_refused_rather_than_wrong() -> None:
    scores = random(2, 5).requires_grad_()
    total = log_sum_exp_squares(scores, torch.ones(5).double()).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        total.backward()


def test_a_sum_over_nothing_is_empty_not_nan() -> None:
    scores = torch.tensor([[3.0]], requires_grad=True)
    alone = log_sum_exp_squares(scores, torch.ones(1), left_out=torch.tensor([0]))
    assert alone.item() == -math.inf
    found = terms(scores, torch.tensor([[0]]), torch.ones(1))
    found.sum().backward()
    assert found.item() == pytest.approx(4.0)
    assert scores.grad.item() == pytest.approx(4.0)


def parts() -> tuple[Linear, Tensor, Batch, Tensor]:
    hidden = torch.randn(5, 4, generator=torch_generator(0, "h")).requires_grad_()
    scorer = Linear(torch.randn(20, 4, generator=torch_generator(0, "w")))
    target = torch.tensor([0, 3, 7, 7, 19])
    batch = Batch(history=torch.zeros(5, 3, dtype=torch.long), target=target, row=torch.arange(5))
    return scorer, hidden, batch, torch.arange(20)


def test_dros_is_bce_plus_alpha_times_the_mean_term() -> None:
    scorer, hidden, batch, popularity = parts()
    robust = RobustTerm(popularity=popularity, beta=2.0)
    found = DROSLoss(robust=robust, alpha=0.3)(scorer, hidden, batch, torch_generator(1, "g"))
    bce = BCELoss()(scorer, hidden, batch, torch_generator(1, "g"))
    mean = terms(scorer.scores(hidden), batch.target[:, None], popularity_weights(popularity) / 2.0).mean()
    torch.testing.assert_close(found, bce + 0.3 * mean)


def test_with_alpha_zero_dros_is_bce_bit_for_bit() -> None:
    scorer, hidden, batch, popularity = parts()
    loss = DROSLoss(robust=RobustTerm(popularity=popularity, beta=1.0), alpha=0.0)
    found = loss(scorer, hidden, batch, torch_generator(1, "g"))
    assert torch.equal(found, BCELoss()(scorer, hidden, batch, torch_generator(1, "g")))
    assert scorer.calls == 0


def test_a_step_scores_the_catalogue_once_for_all_its_losses() -> None:
    scorer, hidden, batch, popularity = parts()
    robust = RobustTerm(popularity=popularity, beta=1.0)
    step = SharedScorer(scorer, hidden)
    alone = DROSLoss(robust=robust, alpha=1.0)(scorer, hidden, batch, torch_generator(1, "g"))
    scorer.calls = 0
    shared = DROSLoss(robust=robust, alpha=1.0)(step, hidden, batch, torch_generator(1, "g"))
    candidates = torch.tensor([[1, 2]]).expand(5, 2)
    together = robust(step, hidden, candidates, scorer.score_items(hidden, candidates))
    assert scorer.calls == 1
    assert torch.equal(alone, shared)
    torch.testing.assert_close(together, terms(scorer.scores(hidden), candidates, popularity_weights(popularity)))
    (shared + together.sum()).backward()
    once = hidden.grad.clone()
    hidden.grad = None
    other = robust(scorer, hidden, candidates, scorer.score_items(hidden, candidates)).sum()
    (DROSLoss(robust=robust, alpha=1.0)(scorer, hidden, batch, torch_generator(1, "g")) + other).backward()
    torch.testing.assert_close(once, hidden.grad)


def test_a_shared_scorer_keeps_nothing_without_gradient_and_nothing_of_other_vectors() -> None:
    scorer, hidden, _, _ = parts()
    step = SharedScorer(scorer, hidden)
    with torch.no_grad():
        assert not step.scores(hidden).requires_grad
    assert step.scores(hidden).requires_grad
    other = hidden.detach().clone() * 2
    torch.testing.assert_close(step.scores(other), scorer.scores(other))
    assert step.num_items == 20


@pytest.mark.parametrize(
    ("popularity", "message"),
    [
        (torch.zeros(0), "popularity is empty"),
        (torch.tensor([1.0, -1.0]), "must not be negative"),
        (torch.tensor([1.0, math.nan]), "not finite"),
        (torch.zeros(2, 2), r"popularity must be \[\*\]"),
    ],
)
def test_popularity_that_is_none_is_refused(popularity: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobustTerm(popularity=popularity, beta=1.0)


def test_robust_terms_refuse_what_they_can_not_use() -> None:
    good, items, scale = torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long), torch.ones(3)
    for scores, at, p, message in [
        (torch.full((2, 3), math.nan), items, scale, "not finite"),
        (good, items, torch.ones(4), r"scale must be \[3\]"),
        (good, items[:1], scale, r"items must be \[2, \*\]"),
        (good, items[:, :0], scale, "items is empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            robust_terms(scores, at, p, chosen=torch.zeros(at.shape), total=log_sum_exp_squares(scores, p))
    with pytest.raises(ValueError, match="beta must be above 0"):
        RobustTerm(popularity=torch.ones(2), beta=0.0)

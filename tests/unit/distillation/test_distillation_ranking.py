import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.distillation import ranking
from dllm2rec.distillation.lessons import Lessons
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.losses.base import Loss
from dllm2rec.losses.bce import BCELoss
from dllm2rec.losses.dros import DROSLoss, RobustTerm

V = 30
PLAIN = BCELoss()


class Linear:
    """A scorer with given weights."""

    num_items = V

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.scored_everything = 0

    def scores(self, hidden: Tensor) -> Tensor:
        self.scored_everything += 1
        return hidden @ self.weight.T

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        return (self.weight[items] @ hidden.unsqueeze(2)).squeeze(2)


def settings(**changes: Any) -> DLLM2RecSettings:
    return DLLM2RecSettings(**({"top_k": 3, "lambda_d": 0.5} | changes))


def lessons(rows: list[int], ranked_items: Tensor, distances: Tensor, target_distance: Tensor) -> Lessons:
    """Labels of a few examples, each at its row, as the training examples with these rows see them."""
    used = [row for row in rows if row >= 0]
    return Lessons(
        ranked_items=ranked_items[used].int(),
        distances=distances[used],
        target_distance=target_distance[used],
        history=torch.zeros(len(used), 2, dtype=torch.long),
        target=torch.zeros(len(used), dtype=torch.long),
        time=torch.zeros(len(used)),
        place=torch.tensor([row if row < 0 else used.index(row) for row in rows]),
        num_items=V,
    )


def distiller(rows: list[int], method: DLLM2RecSettings, *, loss: Loss = PLAIN, **changes: Tensor) -> RankingDistiller:
    lists = torch.stack([torch.randperm(V, generator=torch_generator(i, "lists"))[:3] for i in range(5)])
    distances = 5000 + 1000 * torch.randn(5, 5, generator=torch_generator(0, "d"))
    values = {
        "ranked_items": lists,
        "distances": distances[:, :4].sort(dim=1).values[:, :3],
        "target_distance": distances[:, 4],
    }
    return RankingDistiller(lessons=lessons(rows, **(values | changes)), settings=method, loss=loss)


def parts(count: int = 4) -> tuple[Linear, Tensor, Batch]:
    scorer = Linear(torch.randn(V, 6, generator=torch_generator(0, "w")).requires_grad_())
    hidden = torch.randn(count, 6, generator=torch_generator(0, "h")).requires_grad_()
    target = torch.arange(count)
    return (
        scorer,
        hidden,
        Batch(history=torch.zeros(count, 2, dtype=torch.long), target=target, row=torch.arange(count)),
    )


def value(found: RankingDistiller, count: int = 4) -> float:
    scorer, hidden, batch = parts(count)
    return found(scorer, hidden, batch, torch_generator(0, "g")).item()


def test_one_list_by_hand() -> None:
    scorer = Linear(torch.tensor([[0.0], [1.0], [-1.0]] + [[0.0]] * (V - 3)))
    hidden = torch.tensor([[2.0]])  # scores 0, 2, -2, 0, ...
    batch = Batch(history=torch.zeros(1, 2, dtype=torch.long), target=torch.tensor([0]), row=torch.tensor([0]))
    method = settings(top_k=2, gamma_position=0.3, gamma_confidence=0.5, gamma_consistency=0.1, lambda_d=0.7)
    found = distiller(
        [0],
        method,
        ranked_items=torch.tensor([[2, 1]]),
        distances=torch.tensor([[10.0, 20.0]]),
        target_distance=torch.tensor([15.0]),
    )(scorer, hidden, batch, torch_generator(0, "g"))
    first = math.exp(-1) / (math.exp(-1) + math.exp(-2))
    # one labelled sequence: its confidence is the mean, 1 / K; item 1 is in the student's top two
    weights = [0.3 * first + 0.5 / 2, 0.3 * (1 - first) + 0.5 / 2 + 0.1]
    expected = 0.7 * (weights[0] * math.log1p(math.exp(2)) + weights[1] * math.log1p(math.exp(-2)))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_weight_zero_adds_exactly_nothing_and_draws_nothing(variant: str) -> None:
    scorer, hidden, batch = parts()
    generator = torch_generator(0, "g")
    state = generator.get_state()
    found = distiller([0, 1, 2, 3], settings(lambda_d=0.0, variant=variant))(scorer, hidden, batch, generator)
    assert torch.equal(generator.get_state(), state)
    base = scorer.scores(hidden).square().mean()
    assert torch.equal(base + found, base)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_term_is_proportional_to_lambda(variant: str) -> None:
    once, thrice = (value(distiller([0, 1, 2, 3], settings(lambda_d=x, variant=variant))) for x in (0.2, 0.6))
    assert thrice == pytest.approx(3 * once, rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_batch_without_labels_adds_nothing(variant: str) -> None:
    assert value(distiller([-1, -1, -1, -1, 0], settings(variant=variant))) == 0.0


def gradient(method: DLLM2RecSettings, rows: list[int], loss: Loss) -> Tensor:
    scorer, hidden, batch = parts()
    # confidence that does not depend on which others are labelled
    values = {"target_distance": torch.full((5,), 3.0), "distances": torch.tensor([[1.0, 2.0, 3.0]]).repeat(5, 1)}
    distiller(rows, method, loss=loss, **values)(scorer, hidden, batch, torch_generator(0, "g")).backward()
    assert hidden.grad is not None
    return hidden.grad


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_labelled_example_counts_the_same_at_any_coverage(variant: str, robust: bool) -> None:
    base = DROSLoss(robust=RobustTerm(popularity=torch.arange(V), beta=1.0), alpha=0.5) if robust else PLAIN
    method = settings(variant=variant, sampled_negative_term=False, dros_on_candidates=robust)
    full, partial = gradient(method, [0, 1, 2, 3], base), gradient(method, [-1, 1, -1, 3], base)
    torch.testing.assert_close(partial[[1, 3]], full[[1, 3]])
    assert (partial[[0, 2]] == 0).all()


def test_rows_of_a_batch_find_their_labels() -> None:
    scorer, hidden, batch = parts()
    order = torch.tensor([2, 0, 3, 1])
    found = distiller([4, 1, -1, 0], settings())
    shuffled = Batch(history=batch.history, target=batch.target[order], row=batch.row[order])
    one = found(scorer, hidden, batch, torch_generator(0, "g"))
    other = found(scorer, hidden[order], shuffled, torch_generator(0, "g"))
    torch.testing.assert_close(one, other)
    assert not math.isclose(one.item(), value(distiller([0, 1, -1, 4], settings())))


def test_without_a_share_for_consistency_the_catalogue_is_not_scored() -> None:
    scorer, hidden, batch = parts()
    distiller([0, 1, 2, 3], settings(gamma_consistency=0.0))(scorer, hidden, batch, torch_generator(0, "g"))
    assert scorer.scored_everything == 0


def test_weights_get_no_gradient() -> None:
    scorer, hidden, batch = parts()
    found = distiller([0, 1, 2, 3], settings(gamma_consistency=5.0))
    found(scorer, hidden, batch, torch_generator(0, "g")).backward()
    listed = found.lessons.ranked_items.unique().long()
    others = torch.ones(V, dtype=torch.bool).index_fill(0, listed, value=False)
    assert (scorer.weight.grad[others] == 0).all()
    assert (scorer.weight.grad[listed] != 0).any(dim=1).all()


def test_gradient_of_the_term() -> None:
    weight = torch.randn(V, 6, dtype=torch.float64, generator=torch_generator(0, "w"))
    _, hidden, batch = parts()
    start = hidden.detach().double().requires_grad_()
    for variant in ("paper", "released"):
        found = distiller([0, 1, -1, 3], settings(variant=variant, gamma_consistency=0.0))
        assert torch.autograd.gradcheck(lambda h: found(Linear(weight), h, batch, torch_generator(0, "g")), start)  # noqa: B023


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("released", {"distances": torch.full((5, 3), math.nan)}, "distances has values that are not finite"),
        ("paper", {"target_distance": torch.tensor([math.inf, 2.0, 3.0, 4.0, 5.0])}, "distances has values"),
        ("paper", {"distances": torch.zeros(5, 4)}, "unequal"),
    ],
)
def test_labels_that_do_not_fit_are_refused(variant: str, changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distiller([0], settings(variant=variant), **changes)


@pytest.mark.parametrize("bias", [None, torch.linspace(-2, 2, V)])
def test_a_large_catalogue_is_scored_a_few_examples_at_a_time(
    bias: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = torch.randn(7, 6, generator=torch_generator(1, "h"))
    candidates = torch.randint(V, (7, 10), generator=torch_generator(1, "c"))

    class Biased(Linear):
        def scores(self, hidden: Tensor) -> Tensor:
            return super().scores(hidden) + (0 if bias is None else bias)

        def output_matrix(self) -> tuple[Tensor, Tensor | None]:
            return self.weight, bias

    scorer = Biased(torch.randn(V, 6, generator=torch_generator(1, "w")))
    found = distiller([0], settings(gamma_consistency=0.1))
    at_once = found._consistency(scorer, hidden, candidates)
    assert scorer.scored_everything == 1
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 2 * V)
    torch.testing.assert_close(found._consistency(scorer, hidden, candidates), at_once)
    assert scorer.scored_everything == 1
    assert 0 < at_once.mean() < 1

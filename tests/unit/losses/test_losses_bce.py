import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.losses.bce import BCELoss, BCESettings, binary_cross_entropy
from dllm2rec.losses.dros import DROSLoss
from dllm2rec.losses.factory import LossSettings, build_loss
from dllm2rec.losses.negatives import uniform_negatives
from dllm2rec.losses.softmax import SoftmaxLoss


def test_bce_by_hand() -> None:
    # scores of 0: -log sigma(0) = log 2, for the positive and for each negative
    positive, negatives = torch.zeros(3), torch.zeros(3, 2)
    assert binary_cross_entropy(positive, negatives).item() == pytest.approx(3 * math.log(2))
    assert binary_cross_entropy(positive, negatives, reduction="mean").item() == pytest.approx(math.log(2))
    # log(1 + e^-2) for a positive at 2, log(1 + e^1) for a negative at 1
    one = binary_cross_entropy(torch.tensor([2.0]), torch.tensor([[1.0]]))
    assert one.item() == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(1)))


def test_with_one_negative_the_mean_is_half_the_sum() -> None:
    positive, negatives = torch.tensor([0.3, -1.0]), torch.tensor([[0.7], [2.0]])
    whole = binary_cross_entropy(positive, negatives)
    torch.testing.assert_close(binary_cross_entropy(positive, negatives, reduction="mean"), whole / 2)


def test_large_scores_do_not_overflow() -> None:
    loss = binary_cross_entropy(torch.tensor([-200.0]), torch.tensor([[200.0]]))
    assert loss.item() == pytest.approx(400.0)


def test_bce_gradient() -> None:
    scores = torch.randn(4, 3, dtype=torch.float64, generator=torch_generator(0, "x")).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: binary_cross_entropy(s[:, 0], s[:, 1:]), scores)


@pytest.mark.parametrize(
    ("positive", "negatives", "message"),
    [
        (torch.zeros(0), torch.zeros(0, 1), "positive is empty"),
        (torch.zeros(2), torch.zeros(2, 0), "negatives is empty"),
        (torch.zeros(2), torch.zeros(3, 1), r"negatives must be \[2, \*\], not \[3, 1\]"),
        (torch.zeros(2), torch.zeros(2), "negatives must be"),
        (torch.zeros(2, 1), torch.zeros(2, 1), r"positive must be \[\*\]"),
        (torch.tensor([math.nan]), torch.zeros(1, 1), "positive has values that are not finite"),
        (torch.zeros(1), torch.tensor([[math.inf]]), "negatives has values that are not finite"),
    ],
)
def test_bce_refuses_what_it_can_not_use(positive: Tensor, negatives: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary_cross_entropy(positive, negatives)


class Recorder:
    """A scorer that scores item i as i / 10 and remembers how it was asked."""

    num_items = 10

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def scores(self, hidden: Tensor) -> Tensor:
        raise AssertionError("the whole catalogue was scored")

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        self.asked.append(items)
        return items / 10


def batch() -> Batch:
    target = torch.tensor([0, 9, 5, 5])
    return Batch(history=torch.zeros(4, 3, dtype=torch.long), target=target, row=torch.arange(4))


def test_bce_scores_only_the_target_and_its_negatives() -> None:
    scorer = Recorder()
    loss = BCELoss(negatives=3)(scorer, torch.zeros(4, 2), batch(), torch_generator(1, "x"))
    (items,) = scorer.asked
    assert items.shape == (4, 4)
    assert torch.equal(items[:, 0], batch().target)
    assert not (items[:, 1:] == items[:, :1]).any()
    expected = uniform_negatives(batch().target, num_items=10, count=3, generator=torch_generator(1, "x"))
    assert torch.equal(items[:, 1:], expected)
    torch.testing.assert_close(loss, binary_cross_entropy(batch().target / 10, expected / 10))


def test_negatives_are_uniform_over_all_items_but_the_target() -> None:
    target = torch.tensor([0, 2, 3]).repeat_interleave(20_000)
    drawn = uniform_negatives(target, num_items=4, count=1, generator=torch_generator(0, "x")).squeeze(1)
    for t in (0, 2, 3):
        share = torch.bincount(drawn[target == t], minlength=4) / 20_000
        expected = torch.full((4,), 1 / 3)
        expected[t] = 0.0
        torch.testing.assert_close(share, expected, atol=0.02, rtol=0)


def test_negatives_need_something_to_draw_from() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        uniform_negatives(torch.zeros(1, dtype=torch.long), num_items=1, count=1, generator=torch_generator(0, "x"))
    with pytest.raises(ValueError, match=r"targets must be \[B\]"):
        uniform_negatives(torch.zeros(1, 1), num_items=3, count=1, generator=torch_generator(0, "x"))


@pytest.mark.parametrize(("kind", "loss"), [("bce", BCELoss), ("softmax", SoftmaxLoss), ("dros", DROSLoss)])
def test_the_kind_chooses_the_loss(kind: str, loss: type) -> None:
    settings: LossSettings = TypeAdapter(LossSettings).validate_python({"kind": kind})
    assert isinstance(build_loss(settings, popularity=torch.ones(5)), loss)


@pytest.mark.parametrize("wrong", [{"negatives": 0}, {"reduction": "max"}, {"negativ": 1}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BCESettings(**wrong)

"""Losses over a sample of the catalogue: by hand, against the full softmax, and what they refuse."""

import math
from dataclasses import replace

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.losses.factory import build_loss
from dllm2rec.losses.gbce import GBCELoss, generalised_bce
from dllm2rec.losses.negatives import uniform_negatives
from dllm2rec.losses.sampled_softmax import SampledSoftmaxLoss, SampledSoftmaxSettings, sampled_softmax
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.sasrec import SASRecSettings

ITEMS = 12
BATCH = Batch(history=torch.tensor([[12, 1, 2], [3, 4, 5]]), target=torch.tensor([3, 7]), row=torch.arange(2))


@pytest.fixture
def student() -> Student:
    settings = SASRecSettings(dim=4, dropout=0.0, output_bias=True)
    generator = torch_generator(0, "student")
    return build_student(settings, num_items=ITEMS, history=3, item_vectors=None, generator=generator)


def test_sampled_softmax_by_hand() -> None:
    own, drawn = torch.tensor([1.0]), torch.tensor([[0.5, 2.0, 1.0]])
    expected, hit = torch.log(torch.tensor([0.5, 4.0, 2.0])), torch.tensor([[False, False, True]])
    total = math.exp(1.0) + math.exp(0.5) / 0.5 + math.exp(2.0) / 4.0
    found = sampled_softmax(own, drawn, log_expected=expected, hit=hit)
    assert found.item() == pytest.approx(math.log(total) - 1.0)


def test_all_hits_leave_no_loss_and_no_nan() -> None:
    own = torch.tensor([1.0], requires_grad=True)
    hit = torch.tensor([[True]])
    loss = sampled_softmax(own, torch.tensor([[0.3]]), log_expected=torch.zeros(1), hit=hit)
    loss.backward()
    assert loss.item() == pytest.approx(0.0)
    assert torch.isfinite(own.grad).all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_sampled_sum_estimates_the_sum_of_the_full_softmax(student: Student, power: float) -> None:
    popularity = torch.tensor([5, 1, 2, 9, 4, 4, 1, 30, 2, 2, 6, 1])
    loss = SampledSoftmaxLoss(popularity=popularity, negatives=8, power=power)
    hidden = 3 * student.encode(BATCH.history).detach()
    scores = student.scores(hidden).double()
    others = torch.exp(scores - scores.gather(1, BATCH.target[:, None])).sum(1) - 1
    sums = []
    for seed in range(4000):
        drawn = loss._draw(torch_generator(seed, "draws"))
        weight = torch.exp(scores[:, drawn] - scores.gather(1, BATCH.target[:, None])) / (8 * loss.share[drawn])
        sums.append((weight * (BATCH.target[:, None] != drawn)).sum(1))
    torch.testing.assert_close(torch.stack(sums).mean(0), others, rtol=0.05, atol=0.0)


def test_the_loss_is_made_of_gathered_scores(student: Student) -> None:
    loss = SampledSoftmaxLoss(popularity=torch.ones(ITEMS, dtype=torch.long), negatives=5, power=0.0)
    hidden = student.encode(BATCH.history)
    found = loss(student, hidden, BATCH, torch_generator(3, "draws"))
    drawn = loss._draw(torch_generator(3, "draws"))
    scores = student.scores(hidden).detach()
    expected = 0.0
    for row, target in enumerate(BATCH.target.tolist()):
        total = math.exp(scores[row, target])
        total += sum(math.exp(scores[row, j]) / (5 / ITEMS) for j in drawn.tolist() if j != target)
        expected += (math.log(total) - scores[row, target].item()) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_items_that_came_later_count_nothing(student: Student) -> None:
    since = torch.arange(ITEMS, dtype=torch.float64)
    counts = torch.ones(ITEMS, dtype=torch.long)
    loss = SampledSoftmaxLoss(popularity=counts, negatives=8, power=0.0, since=since)
    hidden = student.encode(BATCH.history)
    timed = replace(BATCH, time=torch.tensor([4.0, 6.5]))
    found = loss(student, hidden, timed, torch_generator(3, "draws"))
    drawn = loss._draw(torch_generator(3, "draws")).tolist()
    scores = student.scores(hidden).detach()
    expected = 0.0
    for row, (target, time) in enumerate(((3, 4.0), (7, 6.5))):
        total = math.exp(scores[row, target])
        total += sum(math.exp(scores[row, j]) / (8 / ITEMS) for j in drawn if j != target and j <= time)
        expected += (math.log(total) - scores[row, target].item()) / 2
    assert any(j > 6.5 for j in drawn)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="the time of an example"):
        loss(student, hidden, BATCH, torch_generator(3, "draws"))


def test_items_that_training_never_saw_are_not_drawn() -> None:
    popularity = torch.tensor([0, 3, 0, 1, 2, 0])
    loss = SampledSoftmaxLoss(popularity=popularity, negatives=3, power=0.0)
    drawn = torch.cat([loss._draw(torch_generator(seed, "draws")) for seed in range(200)])
    assert set(drawn.tolist()) == {1, 3, 4}


def test_generalised_bce_by_hand() -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    found = generalised_bce(torch.tensor([0.3]), torch.tensor([[-1.0, 2.0]]), beta=0.4)
    expected = 0.4 * math.log(sigmoid(0.3)) + math.log(1 - sigmoid(-1.0)) + math.log(1 - sigmoid(2.0))
    assert found.item() == pytest.approx(-expected / 3)


def test_calibration_runs_from_plain_to_the_sampling_rate() -> None:
    assert GBCELoss(num_items=101, negatives=10, calibration=0.0).beta == pytest.approx(1.0)
    assert GBCELoss(num_items=101, negatives=10, calibration=1.0).beta == pytest.approx(0.1)
    assert GBCELoss(num_items=101, negatives=10, calibration=0.5).beta == pytest.approx(0.55)


def test_gbce_scores_target_and_negatives(student: Student) -> None:
    hidden = student.encode(BATCH.history)
    loss = GBCELoss(num_items=ITEMS, negatives=4, calibration=0.75)
    drawn = uniform_negatives(BATCH.target, num_items=ITEMS, count=4, generator=torch_generator(0, "draws"))
    scores = student.scores(hidden)
    expected = generalised_bce(
        scores.gather(1, BATCH.target.unsqueeze(1)).squeeze(1), scores.gather(1, drawn), beta=loss.beta
    )
    assert 0 < loss.beta < 1
    torch.testing.assert_close(loss(student, hidden, BATCH, torch_generator(0, "draws")), expected)


def test_what_competes_with_the_target_is_what_the_settings_say() -> None:
    """Items that come later are no negatives of what was chosen before, where the settings say so."""
    popularity, since = torch.arange(1, ITEMS + 1), torch.arange(ITEMS).double()
    for candidates, expected in (("seen", None), ("available", since)):
        settings = SampledSoftmaxSettings(candidates=candidates, negatives=4)
        found = build_loss(settings, popularity=popularity, since=since)
        assert isinstance(found, SampledSoftmaxLoss)
        assert (found.since is None) == (expected is None)


def test_more_negatives_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.negatives is 4, but only 3 items were seen"):
        SampledSoftmaxLoss(popularity=torch.tensor([0, 3, 0, 1, 2, 0]), negatives=4, power=0.5)
    with pytest.raises(ValueError, match=r"loss\.negatives is 6, but there are only 5 other items"):
        GBCELoss(num_items=6, negatives=6, calibration=0.5)

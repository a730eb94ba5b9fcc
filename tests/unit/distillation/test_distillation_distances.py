import math

import pytest
import torch
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.distillation.distances import normalise_distances, normalise_listed_distances
from dllm2rec.distillation.weights import item_confidence, sequence_confidence


def spread(weights: Tensor) -> float:
    """The coefficient of variation."""
    return float(weights.double().std() / weights.double().mean())


def realistic(*shape: int) -> Tensor:
    return 5000 + 1000 * torch.randn(*shape, generator=torch_generator(0, "d"))


def test_distances_of_a_language_model_give_confidence_weights_that_spread() -> None:
    weights = sequence_confidence(normalise_distances(realistic(4000)), size=10)
    assert 0.2 < spread(weights) < 3
    assert (weights > 0).all()
    assert weights.max() / weights.sum() < 0.01  # none has all
    assert weights.max() / weights.min() < math.exp(6) + 1
    lists = item_confidence(normalise_listed_distances(realistic(400, 10).sort(dim=1).values))
    assert 0.2 < spread(lists) < 3
    assert (lists > 0).all()
    assert lists.max() < 0.95


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_raw_distances_collapse_which_is_why_they_are_normalised(scale: float) -> None:
    weights = sequence_confidence(normalise_distances(realistic(4000) * scale, normalisation="none"), size=10)
    everything_on_one = weights.max() / weights.sum() > 0.99
    all_equal = spread(weights) < 0.01
    assert everything_on_one or all_equal


def test_a_teacher_that_is_often_exactly_right_keeps_its_weights_bounded() -> None:
    distances = realistic(1000)
    distances[:600] = 0.0  # median absolute deviation 0
    weights = sequence_confidence(normalise_distances(distances), size=10)
    assert torch.isfinite(weights).all()
    assert weights[:600].mean() > 3 * weights[600:].mean()
    assert weights[600:].min() > 0
    assert spread(weights) > 0.2


def test_one_absurd_distance_does_not_flatten_the_others() -> None:
    distances = realistic(1000)
    distances[0] = 1e12
    assert spread(sequence_confidence(normalise_distances(distances), size=10)[1:]) > 0.2


def test_normalisation_by_hand() -> None:
    # median 3, absolute deviations 2 1 0 1 97: median 1
    found = normalise_distances(torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0]))
    expected = torch.tensor([-2 / 1.4826, -1 / 1.4826, 0.0, 1 / 1.4826, 3.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_lists_are_centred_by_themselves_and_share_one_spread() -> None:
    # residuals -1 0 1 and -10 0 30; absolute 1 0 1 10 0 30: (lower) median 1
    found = normalise_listed_distances(torch.tensor([[4.0, 5.0, 6.0], [90.0, 100.0, 130.0]]))
    unit = 1 / 1.4826
    expected = torch.tensor([[-unit, 0.0, unit], [-3.0, 0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_equal_distances_give_equal_weights() -> None:
    assert normalise_distances(torch.full((4,), 9.0)).tolist() == [0.0] * 4
    assert sequence_confidence(normalise_distances(torch.full((4,), 9.0)), size=2).tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(0), "empty"),
        (torch.tensor([1.0, math.nan]), "not finite"),
        (torch.zeros(2, 2), r"must be \[\*\]"),
    ],
)
def test_what_is_no_distance_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalise_distances(bad)
    with pytest.raises(ValueError, match="distances"):
        normalise_listed_distances(bad.unsqueeze(0))


def test_what_is_equal_but_for_rounding_is_equal() -> None:
    exact = torch.cat([torch.zeros(600), torch.linspace(100, 300, 400)])
    almost = exact + 1e-8 * torch.rand(1000, generator=torch_generator(0, "d"))
    torch.testing.assert_close(normalise_distances(almost), normalise_distances(exact), rtol=0, atol=1e-6)

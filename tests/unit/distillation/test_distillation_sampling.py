import math

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.distillation.permutation import NO_ITEM
from dllm2rec.distillation.sampling import draw_by_rank, draw_distinct, draw_outside


def test_pairs_come_as_often_as_they_should() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2])
    drawn = draw_distinct(weights.log().expand(60_000, 3), 2, generator=torch_generator(0, "draw"))
    for first in range(3):
        for second in range(3):
            expected = 0.0 if first == second else weights[first] * weights[second] / (1 - weights[first])
            share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).float().mean().item()
            assert share == pytest.approx(float(expected), abs=0.008)


def test_what_has_no_weight_is_never_drawn() -> None:
    log_weights = torch.tensor([[0.0, -math.inf, 1.0], [-math.inf, -math.inf, -math.inf]])
    drawn = draw_distinct(log_weights, 3, generator=torch_generator(0, "draw"))
    assert {*drawn[0, :2].tolist()} == {0, 2}
    assert drawn[0, 2] == NO_ITEM
    assert drawn[1].tolist() == [NO_ITEM] * 3


@pytest.mark.parametrize("count", [0, 4])
def test_more_than_there_is(count: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 3"):
        draw_distinct(torch.zeros(2, 3), count, generator=torch_generator(0, "draw"))


def test_places_of_a_list_ascend_and_better_ones_come_more_often() -> None:
    drawn = draw_by_rank(40_000, depth=6, count=1, temperature=2.0, generator=torch_generator(0, "rank"))
    weights = torch.softmax(-torch.arange(1, 7) / 2.0, dim=0)
    torch.testing.assert_close(drawn.flatten().bincount(minlength=6) / 40_000, weights, atol=0.01, rtol=0)
    several = draw_by_rank(500, depth=6, count=4, temperature=2.0, generator=torch_generator(0, "rank"))
    assert (several.diff(dim=1) > 0).all()
    again = draw_by_rank(500, depth=6, count=4, temperature=2.0, generator=torch_generator(0, "rank"))
    assert torch.equal(several, again)


def test_items_outside_are_uniform_over_what_is_left() -> None:
    excluded = torch.tensor([[0, 3, 3, 8, 8]]).expand(30_000, 5)  # 8 is padding
    drawn = draw_outside(excluded, num_items=8, count=2, generator=torch_generator(0, "out"))
    shares = drawn.flatten().bincount(minlength=8) / 60_000
    expected = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1]) / 6
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


def test_a_row_that_excludes_everything_gets_nobody() -> None:
    excluded = torch.tensor([[0, 1, 2], [0, 1, 3]])
    drawn = draw_outside(excluded, num_items=3, count=4, generator=torch_generator(0, "out"))
    assert drawn.tolist() == [[NO_ITEM] * 4, [2] * 4]

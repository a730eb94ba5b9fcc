"""Weights of trend and newness, chosen on validation."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dllm2rec.data import Examples
from dllm2rec.data.demand import Demand
from dllm2rec.data.examples import Past
from dllm2rec.evaluation.demand import (
    NEW,
    PAIRS,
    TEXT,
    TREND,
    _most_text,
    adjusted,
    choose_demand,
    unseen_weights,
)
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.evaluation.ranks import mean_ranks, rank_targets
from dllm2rec.evaluation.shifts import gains_under_shifts
from dllm2rec.students.base import add_again

V, N = 60, 300


def setting(share_new: float, *, follows_trend: bool = False) -> tuple[Examples, Demand, NDArray[np.float32]]:
    """Items 50 to 59 are new; scores say nothing but noise; targets are drawn with ``share_new`` of new ones."""
    draw = np.random.default_rng(0)
    trend = np.where(np.arange(V) < 50, np.linspace(-3, 3, V), 0).astype(np.float32)
    seen = np.exp(trend[:50].astype(np.float64)) if follows_trend else np.ones(50)
    chance = np.concatenate([(1 - share_new) * seen / seen.sum(), np.full(10, share_new / 10)])
    examples = Examples(
        example_id=np.arange(N),
        user=np.zeros(N, np.int32),
        history=np.arange(N, dtype=np.int32)[:, None] % V,
        target=draw.choice(V, N, p=chance).astype(np.int32),
        time=np.arange(N),
        num_items=V,
    )
    return examples, Demand(trend=trend, new=np.arange(V) >= 50), draw.normal(size=(V, V)).astype(np.float32)


def score_by(table: NDArray[np.float32], *, scale: float = 1.0):
    return lambda history: torch.from_numpy(scale * table[history[:, -1].numpy()]).float()


def test_new_items_are_lifted_where_they_are_chosen_and_only_there() -> None:
    examples, demand, table = setting(0.7)
    found = choose_demand(score_by(table), examples, demand)
    assert found.new > 0
    assert found.ndcg > found.before
    examples, demand, table = setting(0.0)
    assert choose_demand(score_by(table), examples, demand).new < 0


def test_the_trend_counts_where_targets_follow_it() -> None:
    examples, demand, table = setting(0.1, follows_trend=True)
    found = choose_demand(score_by(table), examples, demand)
    assert found.trend > 0


def test_it_is_the_best_pair_of_all_by_an_independent_search() -> None:
    examples, demand, table = setting(0.3, follows_trend=True)
    score = score_by(table)
    found = choose_demand(score, examples, demand)
    unit = found.new / found_unit(found.new, found.trend)
    assert unit > 0
    reached = {}
    for trend, new in product(TREND, NEW):
        shift = (unit * trend * demand.trend + unit * new * demand.new).astype(np.float32)
        ranks = rank_targets(adjusted(score, reads=1, shift=shift, again=found.again), examples).rank
        reached[trend, new] = ndcg(ranks, 20).mean()
    assert found.ndcg == pytest.approx(max(reached.values()), rel=1e-6)
    assert reached[found.trend / unit, found.new / unit] == pytest.approx(found.ndcg, rel=1e-6)
    assert found.before == pytest.approx(ndcg(rank_targets(score, examples).rank, 20).mean())
    np.testing.assert_array_equal(found.shift(demand), demand.shift(trend=found.trend, new=found.new))
    assert found.trend != 0


@pytest.mark.parametrize("kind", ["noise", "ties", "close"])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_gains_under_all_shifts_are_those_of_ranking_under_each(kind: str, size: float) -> None:
    draw = np.random.default_rng(3)
    items, rows = 400, 60
    scores = draw.normal(size=(rows, items))
    if kind == "ties":
        scores = np.round(scores)
    if kind == "close":  # nearer to each other than what shifts of this size can tell apart
        scores *= 1e-7
    scores = (size * scores).astype(np.float32)
    new = np.arange(items) >= 370
    trend = np.where(new, 0, np.round(draw.normal(size=items), 1 if kind == "ties" else 8)).astype(np.float32)
    demand = Demand(trend=trend, new=new)
    weights = [(0.7 * size * one, 0.7 * size * two) for one, two in PAIRS]
    target = np.where(draw.random(rows) < 0.7, scores.argsort(axis=1)[:, -3], draw.integers(items, size=rows))
    found = gains_under_shifts(scores, target, demand, weights)
    own = torch.from_numpy(target[:, None])
    for (one, two), gains in zip(weights, found, strict=True):
        shift = demand.shift(trend=one, new=two)
        np.testing.assert_array_equal(gains, ndcg(mean_ranks(torch.from_numpy(scores + shift), own), 20))
    assert (found > 0).any()
    assert (found == 0).any()


def found_unit(new: float, trend: float) -> float:
    """Return which of the weights tried ``new`` is, given that ``trend`` must be one of them in the same unit."""
    assert new != 0
    fits = [one for one in NEW if one and any(abs(trend - new / one * other) < 1e-9 for other in TREND)]
    return fits[0]


def test_weights_are_in_the_unit_of_the_scores() -> None:
    examples, demand, table = setting(0.7, follows_trend=True)
    one, ten = (choose_demand(score_by(table, scale=scale), examples, demand) for scale in (1.0, 10.0))
    assert ten.new == pytest.approx(10 * one.new, rel=0.01)
    assert ten.trend == pytest.approx(10 * one.trend, rel=0.01)
    assert ten.ndcg == pytest.approx(one.ndcg, rel=1e-3)


def test_unseen_targets_weigh_what_they_do_in_the_newest_third() -> None:
    examples, demand, table = setting(0.0)
    several = examples.take(np.tile(np.arange(N), 6))  # 1,800, none of an unseen item
    target = several.target.copy()
    target[:60], target[1200:1350] = 55, 55
    changed = Examples(**{**vars(several), "target": target})
    weight = unseen_weights(changed, demand)
    unseen = target == 55
    assert weight.sum() == pytest.approx(1.0)
    assert weight[unseen].sum() == pytest.approx(150 / 600)
    assert len(set(weight[unseen].tolist())) == len(set(weight[~unseen].tolist())) == 1
    target[:900], target[1200:1350] = 55, several.target[1200:1350]  # unseen ones long ago only
    assert unseen_weights(changed, demand)[target == 55].sum() == 0
    assert choose_demand(score_by(table), changed, demand).new < 0
    few = unseen_weights(examples.take(np.arange(30)), demand)
    np.testing.assert_allclose(few, 1 / 30)


def test_without_anything_to_gain_nothing_changes() -> None:
    examples, demand, _ = setting(0.2)
    some = examples.take(np.arange(V))  # one for each history
    perfect = np.full((V, V), -50.0, np.float32)
    perfect[np.arange(V), some.target] = 50.0
    found = choose_demand(score_by(perfect), some, demand)
    assert (found.trend, found.new, found.again) == (0.0, 0.0, 0.0)
    assert found.ndcg == pytest.approx(1.0)


def test_what_was_just_chosen_sinks_where_nobody_wants_it_again() -> None:
    examples, demand, table = setting(0.0)
    alike = 3.0 * np.eye(V, dtype=np.float32) + 0.3 * table  # nothing is more like an item than itself
    fresh = Examples(**{**vars(examples), "target": ((examples.history[:, -1] + 1) % V).astype(np.int32)})
    found = choose_demand(score_by(alike + 2.0 * np.roll(np.eye(V), 1, axis=1)), fresh, demand)
    assert found.again < 0
    assert found.ndcg > found.before
    same = Examples(**{**vars(examples), "target": examples.history[:, -1]})
    assert choose_demand(score_by(0.3 * table), same, demand).again > 0


def with_past(examples: Examples, target: NDArray[np.int32]) -> Examples:
    """Three items before each target, two of them beyond what is read: the same two, other users' and one's own."""
    three = np.stack([(target + 1) % V, (target + 2) % V, examples.history[:, -1]], axis=1)
    items = np.concatenate([three, target[:, None]], axis=1).ravel().astype(np.int32)
    past = Past(items=items, target=np.arange(3, 4 * N, 4), length=np.full(N, 3))
    return Examples(**{**vars(examples), "target": target, "past": past})


def test_what_was_chosen_long_ago_counts_where_it_is_not_wanted_again() -> None:
    examples, demand, table = setting(0.0)
    target = examples.target
    table[examples.history[:, -1], :] += 3 * np.eye(V, dtype=np.float32)[(target + 1) % V]  # is always in the past
    found = choose_demand(score_by(table), with_past(examples, target), demand)
    assert found.again < 0
    assert found.ever
    alone = choose_demand(score_by(table), examples, demand)
    assert not alone.ever
    assert found.ndcg > alone.ndcg


def test_what_was_chosen_long_ago_is_left_alone_where_it_is_wanted() -> None:
    examples, demand, table = setting(0.0)
    past = with_past(examples, examples.target)
    wanted = np.where(np.arange(N) % 2 == 0, past.known()[:, 0], past.known()[:, 1])
    found = choose_demand(score_by(0.1 * table), Examples(**{**vars(past), "target": wanted.astype(np.int32)}), demand)
    assert found.again > 0
    assert found.ever


def test_what_is_given_beyond_the_newest_is_read_by_none_but_again() -> None:
    history = torch.tensor([[0, 1, 2]])
    given: list[torch.Tensor] = []

    def score(part: torch.Tensor) -> torch.Tensor:
        given.append(part)
        return torch.zeros(1, 4)

    assert adjusted(score, reads=2, again=1.0)(history).tolist() == [[0, 1, 1, 0]]
    assert adjusted(score, reads=2, again=1.0, ever=True)(history).tolist() == [[1, 1, 1, 0]]
    assert [part.tolist() for part in given] == [[[1, 2]]] * 2


def test_text_counts_where_targets_are_like_the_history_and_only_there() -> None:
    examples, demand, table = setting(0.2)
    like = np.random.default_rng(1).permutation(V)  # the one whose text is nearest
    text = score_by(np.eye(V, dtype=np.float32)[like])
    target = np.where(np.arange(N) % 2 == 0, like[examples.history[:, -1]], examples.target)
    near = Examples(**{**vars(examples), "target": target.astype(np.int32)})
    found = choose_demand(score_by(table), near, demand, text=text)
    assert found.text > 0
    assert found.ndcg > choose_demand(score_by(table), near, demand).ndcg + 0.2
    far = Examples(**{**vars(examples), "target": ((like[examples.history[:, -1]] + 1) % V).astype(np.int32)})
    knows = table + 2 * np.roll(np.eye(V, dtype=np.float32), 1, axis=1)[like]
    assert choose_demand(score_by(knows), far, demand, text=text).text == 0


def test_transitions_count_where_targets_follow_and_only_there() -> None:
    examples, demand, table = setting(0.2)
    follower = np.random.default_rng(1).permutation(V)
    counted = score_by(0.01 * np.eye(V, dtype=np.float32)[follower])  # on a scale of its own
    target = np.where(np.arange(N) % 2 == 0, follower[examples.history[:, -1]], examples.target)
    following = Examples(**{**vars(examples), "target": target.astype(np.int32)})
    found = choose_demand(score_by(table), following, demand, transitions=counted)
    without = choose_demand(score_by(table), following, demand)
    assert found.transitions > 10  # times .01, beside noise of size 1
    assert found.ndcg > without.ndcg + 0.2
    assert (found.trend, found.new, found.again) == (without.trend, without.new, without.again)
    other = Examples(**{**vars(examples), "target": ((follower[examples.history[:, -1]] + 1) % V).astype(np.int32)})
    knows = table + 2 * np.roll(np.eye(V, dtype=np.float32), 1, axis=1)[follower]
    assert choose_demand(score_by(knows), other, demand, transitions=counted).transitions == 0


def test_of_text_as_much_is_taken_as_is_within_a_standard_error() -> None:
    draw = np.random.default_rng(0)
    best = draw.random(1000)
    noise = draw.normal(size=1000)
    worse = [best - loss + 0.5 * (noise - noise.mean()) for loss in (0.1, 0.0, 0.01, 0.012, 0.03, 0.014)]
    gains = [best if place == 1 else one for place, one in enumerate(worse)]  # standard error: .5 / sqrt(1000) = .0158
    weight = np.full(1000, 1 / 1000)
    assert _most_text(gains, weight) == TEXT[5]
    assert _most_text([*gains[:5], gains[4]], weight) == TEXT[3]
    assert _most_text([best, *(best - 0.1 for _ in TEXT[1:])], weight) == 0
    assert _most_text([best] * len(TEXT), weight) == 0
    assert _most_text([best - 0.001, best, *(best - 0.001 - 0.01 * noise for _ in TEXT[2:])], weight) == TEXT[1]


def test_the_history_is_looked_at_again_once_there_is_text() -> None:
    examples, demand, table = setting(0.0)
    like = np.random.default_rng(1).permutation(V)
    text = score_by((0.6 * np.eye(V)[like] + np.eye(V)).astype(np.float32))  # what is most like an item is itself
    target = np.where(np.arange(N) % 2 == 0, like[examples.history[:, -1]], examples.target)
    fresh = Examples(**{**vars(examples), "target": target.astype(np.int32)})
    fresh = fresh.take(np.flatnonzero(fresh.target != fresh.history[:, -1]))
    np.fill_diagonal(table, -4.0)  # without text the history's items are last
    found = choose_demand(score_by(0.2 * table), fresh, demand, text=text)
    assert found.text > 0
    assert found.again < 0
    assert choose_demand(score_by(0.2 * table), fresh, demand).again == 0


def test_again_counts_once_and_not_for_padding() -> None:
    scores = torch.arange(8.0).reshape(2, 4)
    history = torch.tensor([[4, 1, 1], [4, 4, 0]])
    expected = torch.tensor([[0.0, 0.5, 2.0, 3.0], [3.5, 5.0, 6.0, 7.0]])
    torch.testing.assert_close(add_again(scores, history, -0.5), expected)
    assert add_again(scores, history, 0.0) is scores
    both = adjusted(lambda _: scores, reads=3, shift=np.array([1, 0, 0, 0], np.float32), again=-0.5)
    torch.testing.assert_close(both(history), expected + torch.tensor([1.0, 0, 0, 0]))

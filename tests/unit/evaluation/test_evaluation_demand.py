"""Weights of trend and newness, chosen on validation."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dllm2rec.data import Examples
from dllm2rec.data.demand import Demand
from dllm2rec.evaluation.demand import NEW, TREND, choose_demand, shifted
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.evaluation.ranks import rank_targets

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
    reached = {}
    for trend, new in product(TREND, NEW):
        shift = (unit * trend * demand.trend + unit * new * demand.new).astype(np.float32)
        ranks = rank_targets(shifted(score, shift), examples).rank
        reached[trend, new] = ndcg(ranks, 20).mean()
    assert found.ndcg == pytest.approx(max(reached.values()), rel=1e-6)
    assert reached[found.trend / unit, found.new / unit] == pytest.approx(found.ndcg, rel=1e-6)
    assert found.before == pytest.approx(reached[0.0, 0.0])


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


def test_without_anything_to_gain_nothing_changes() -> None:
    examples, demand, _ = setting(0.2)
    perfect = np.full((V, V), -50.0, np.float32)
    perfect[np.arange(N) % V, examples.target] = 50.0
    by_row = torch.from_numpy(np.full((N, V), -50.0, np.float32))
    by_row[torch.arange(N), torch.from_numpy(examples.target.astype(np.int64))] = 50.0
    examples = Examples(**{**vars(examples), "history": np.arange(N, dtype=np.int32)[:, None]})
    found = choose_demand(lambda history: by_row[history[:, -1]], examples, demand)
    assert (found.trend, found.new, found.ndcg) == (0.0, 0.0, 1.0)

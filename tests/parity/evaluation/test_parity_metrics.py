"""Ranks and metrics against a slow loop, and metrics against ranx."""

import numpy as np
import pytest
import ranx
import torch

from dllm2rec.data import Examples
from dllm2rec.evaluation.metrics import hit_rate, ndcg, reciprocal_rank
from dllm2rec.evaluation.ranks import rank_targets


def make_examples(count: int, num_items: int, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    history = generator.integers(0, num_items, size=(count, 4)).astype(np.int32)
    history[: count // 2, 0] = num_items
    return Examples(
        example_id=np.arange(count, dtype=np.int64),
        user=np.zeros(count, np.int32),
        history=history,
        target=generator.integers(0, num_items, size=count).astype(np.int32),
        time=np.zeros(count, np.int64),
        num_items=num_items,
    )


@pytest.mark.parametrize("mask", [False, True])
def test_ranks_agree_with_a_slow_loop(mask: bool) -> None:
    examples = make_examples(37, 23)
    # few distinct values: many ties
    table = torch.randint(0, 5, (24, 23), generator=torch.Generator().manual_seed(0)).float()
    score = lambda history: table[history[:, -1]]  # noqa: E731
    ranks = rank_targets(score, examples, batch_size=5, mask_history=mask, top_k=6)
    for row in range(len(examples)):
        scores = table[int(examples.history[row, -1])].tolist()
        target = int(examples.target[row])
        allowed = [i for i in range(23) if i == target or not (mask and i in examples.history[row])]
        greater = sum(scores[i] > scores[target] for i in allowed)
        equal = sum(scores[i] == scores[target] for i in allowed if i != target)
        assert ranks.rank[row] == 1 + greater + equal / 2
        best = sorted(allowed, key=lambda i: (-scores[i], i))[:6]
        assert ranks.top_items is not None
        assert ranks.top_items[row].tolist() == best


@pytest.mark.parametrize("k", [1, 5, 20])
def test_metrics_agree_with_ranx(k: int) -> None:
    generator = np.random.default_rng(3)
    num_items, count = 60, 200
    scores = generator.random((count, num_items))
    targets = generator.integers(0, num_items, size=count)
    qrels = ranx.Qrels({f"q{row}": {f"i{targets[row]}": 1} for row in range(count)})
    run = ranx.Run({f"q{row}": {f"i{item}": scores[row, item] for item in range(num_items)} for row in range(count)})
    own = scores[np.arange(count), targets]
    rank = 1.0 + (scores > own[:, None]).sum(axis=1)
    theirs = ranx.evaluate(qrels, run, [f"hit_rate@{k}", f"ndcg@{k}", f"mrr@{k}"])
    assert hit_rate(rank, k).mean() == pytest.approx(theirs[f"hit_rate@{k}"])
    assert ndcg(rank, k).mean() == pytest.approx(theirs[f"ndcg@{k}"])
    assert reciprocal_rank(rank, k).mean() == pytest.approx(theirs[f"mrr@{k}"])

"""UnKD against a loop, for the pairs that were drawn; the pairs against the weights that they are drawn with."""

import math
from collections import Counter

import method_cases as case
import numpy as np
import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.distillation.unkd import UnKDDistiller, UnKDSettings, draw_pairs, popularity_groups

POPULARITY = np.random.default_rng(1).integers(0, 50, case.V)


def slow_groups(count: int) -> list[int]:
    total, so_far, group = POPULARITY.sum(), 0.0, [0] * case.V
    for item in sorted(range(case.V), key=lambda i: -POPULARITY[i]):
        group[item] = min(count - 1, int(count * (so_far + POPULARITY[item] / 2) / total))
        so_far += POPULARITY[item]
    return group


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("depth", "pairs"), [(12, 5), (3, 30), (1, 2)])
def test_unkd_agrees_with_a_slow_loop(groups: int, depth: int, pairs: int) -> None:
    method = UnKDSettings(lambda_d=0.6, depth=depth, groups=groups, pairs=pairs, temperature=3.0)
    distiller = UnKDDistiller(lessons=case.lessons(depth), popularity=torch.from_numpy(POPULARITY), settings=method)
    found = case.term(distiller)
    group, total = slow_groups(groups), 0.0
    assert popularity_groups(torch.from_numpy(POPULARITY), count=groups).tolist() == group
    for p in case.PLACES:
        listed, terms = case.LISTS[p, :depth].tolist(), []
        for column in range(groups * pairs):
            inside = [item for item in listed if group[item] == column // pairs]
            if len(inside) < 2:
                continue
            better, worse = distiller.pairs[:, p, column].tolist()
            assert inside.index(better) < inside.index(worse)
            terms.append(case.log_sigmoid(case.SCORES[p, better] - case.SCORES[p, worse]))
        total -= sum(terms) / len(terms) if terms else 0.0
    assert found == pytest.approx(0.6 * total / len(case.ROW), rel=1e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_pairs_are_drawn_with_their_weights(size: int) -> None:
    count, temperature = 200_000, 1.5
    drawn = draw_pairs(torch.full((count,), size), temperature=temperature, generator=torch_generator(0, "pairs"))
    found = Counter(zip(*(side.tolist() for side in drawn), strict=True))
    weights = [math.exp(-r / temperature) for r in range(1, size + 1)]
    for a in range(size):
        for b in range(a + 1, size):
            one, other, everything = weights[a], weights[b], sum(weights)
            expected = one / everything * other / (everything - one) + other / everything * one / (everything - other)
            assert found.pop((a, b)) / count == pytest.approx(expected, abs=0.005)
    assert not found

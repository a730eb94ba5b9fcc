"""DCD against a loop: ranks, weights, and the loss of the items that were drawn."""

import math

import method_cases as case
import numpy as np
import pytest
import torch

from dllm2rec.distillation.dcd import DCDDistiller, DCDSettings, correction_weights, rank_gaps
from dllm2rec.distillation.permutation import NO_ITEM


def ranking(p: int) -> list[int]:
    return sorted(range(case.V), key=lambda i: -case.SCORES[p, i])


def slow_gaps(p: int, depth: int) -> tuple[dict[int, int], dict[int, int]]:
    """How far each item is under-estimated, and over-estimated."""
    student, teacher = ranking(p), case.LISTS[p, :depth].tolist()
    known = {*case.HISTORY[p].tolist(), case.TARGET[p]}
    under = {item: student.index(item) - teacher.index(item) for item in teacher}
    over = {
        item: (teacher.index(item) if item in teacher else depth) - student.index(item)
        for item in student[:depth]
        if item not in known
    }
    return ({i: gap for i, gap in gaps.items() if gap > 0} for gaps in (under, over))


@pytest.mark.parametrize("depth", [1, 6, 12])
@pytest.mark.parametrize("enough", [100, 3])
def test_gaps_and_weights_agree_with_slow_loops(depth: int, enough: int) -> None:
    listed = torch.from_numpy(case.LISTS[:, :depth])
    known = torch.from_numpy(np.concatenate([case.HISTORY, case.TARGET[:, None]], axis=1))
    gaps = rank_gaps(torch.from_numpy(case.SCORES), listed, known, enough=enough)
    for p in range(case.P):
        for items, found, expected in zip(
            (listed[p], gaps.student_items[p]), (gaps.under[p], gaps.over[p]), slow_gaps(p, depth), strict=True
        ):
            weights = correction_weights(found, 2.0).exp().tolist()
            for item, gap, weight in zip(items.tolist(), found.tolist(), weights, strict=True):
                true = expected.get(item, 0)
                assert max(0, gap) == true or min(gap, true) > enough - 1
                if enough == 100:
                    assert weight == pytest.approx(math.tanh(true / 2.0), rel=1e-6)


@pytest.mark.parametrize(("depth", "samples"), [(12, 3), (12, 12), (5, 4), (1, 1)])
def test_dcd_agrees_with_a_slow_loop(depth: int, samples: int) -> None:
    method = DCDSettings(lambda_d=0.3, depth=depth, samples=samples, temperature=2.0)
    distiller = DCDDistiller(lessons=case.lessons(depth), settings=method)
    found = case.term(distiller)
    total = 0.0
    for p in case.PLACES:
        under, over = ([i for i in items[p].tolist() if i != NO_ITEM] for items in (distiller.under, distiller.over))
        wrong = slow_gaps(p, depth)
        for drawn, gaps in zip((under, over), wrong, strict=True):
            assert len(set(drawn)) == len(drawn) == min(samples, len(gaps))
            assert {*drawn} <= {*gaps}
        listed = case.LISTS[p].tolist()
        assert sorted(under, key=listed.index) == under
        total += case.slow_permutation([case.SCORES[p, i] for i in under], [case.SCORES[p, i] for i in over])
    assert found == pytest.approx(0.3 * total / len(case.ROW), rel=1e-5)

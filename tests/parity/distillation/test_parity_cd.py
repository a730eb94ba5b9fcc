"""CD against a loop, for the items that were drawn."""

import math

import method_cases as case
import numpy as np
import pytest

from dllm2rec.distillation.cd import CDDistiller, CDSettings


def normalised(distances: np.ndarray) -> list[list[float]]:
    """Each list minus its (lower) median, over the robust spread of all, within -3 and 3."""
    residuals = [[d - sorted(row)[(len(row) - 1) // 2] for d in row] for row in distances.tolist()]
    flat = sorted(abs(r) for row in residuals for r in row)
    spread = 1.4826 * flat[(len(flat) - 1) // 2]
    return [[min(3.0, max(-3.0, r / spread)) for r in row] for row in residuals]


@pytest.mark.parametrize("guided", ["student", "teacher"])
@pytest.mark.parametrize(("depth", "samples"), [(12, 4), (12, 50), (6, 6)])
def test_cd_agrees_with_a_slow_loop(guided: str, depth: int, samples: int) -> None:
    method = CDSettings(lambda_d=0.6, depth=depth, samples=samples, guided=guided, shift=0.3, temperature=0.1)
    distiller = CDDistiller(lessons=case.lessons(depth), settings=method)
    found = case.term(distiller)
    teacher = [[-d for d in row] for row in normalised(case.DISTANCES[:, :depth])]
    total = 0.0
    for p in case.PLACES:
        chosen = distiller.chosen[p].tolist()
        assert len(set(chosen)) == min(samples, depth)
        terms = []
        for place in chosen:
            q = 1 / (1 + math.exp(-(teacher[p][place] + 0.3) / 2.0))
            score = case.SCORES[p, case.LISTS[p, place]]
            terms.append(q * case.log_sigmoid(score) + (1 - q) * case.log_sigmoid(-score))
        total -= sum(terms) / len(terms)
    assert found == pytest.approx(0.6 * total / len(case.ROW), rel=1e-5)

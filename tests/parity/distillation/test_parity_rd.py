"""RD against a loop: static weights, and dynamic ones for the items that were drawn."""

import math

import method_cases as case
import pytest
import torch

from dllm2rec.distillation.rd import RDDistiller, RDSettings


def slow(method: RDSettings, depth: int, sampled: torch.Tensor | None) -> float:
    total = 0.0
    for p in case.PLACES:
        listed = [i for i in case.LISTS[p, :depth].tolist() if i != case.TARGET[p]][: method.top_k]
        norm = sum(math.exp(-k / method.decay) for k in range(1, method.top_k + 1))
        for k, item in enumerate(listed, start=1):
            weight = math.exp(-k / method.decay) / norm
            if sampled is not None:
                above = sum(case.SCORES[p, j] > case.SCORES[p, item] for j in sampled[p].tolist())
                rank = math.floor(above * (case.V - 1) / method.samples) + 1
                weight *= max(0.0, math.tanh(method.steepness * (rank - k)))
            total -= weight * case.log_sigmoid(case.SCORES[p, item])
    return method.lambda_d * total / len(case.ROW)


@pytest.mark.parametrize("epoch", [1, 3, 4, 9])
@pytest.mark.parametrize(("top_k", "depth"), [(5, 6), (5, 5), (2, 3), (1, 1)])
def test_rd_agrees_with_a_slow_loop(epoch: int, top_k: int, depth: int) -> None:
    method = RDSettings(lambda_d=0.4, top_k=top_k, decay=1.7, warm_up=3, samples=20, steepness=0.2)
    distiller = RDDistiller(lessons=case.lessons(depth), settings=method)
    found = case.term(distiller, epoch=epoch)
    assert (distiller.sampled is None) == (epoch <= 3)
    assert found == pytest.approx(slow(method, depth, distiller.sampled), rel=1e-5)

"""The benchmark's re-creation of the authors' loop does the same work: same loss, same gradients."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dllm2rec.core.seeding import torch_generator

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "distillation_speed.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("distillation_speed", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distillation_speed"] = module
    spec.loader.exec_module(module)
    return module


def test_both_ways_give_the_same_loss_and_gradients(benchmark: ModuleType) -> None:
    work = benchmark.make_work(num_items=300, vector_size=12, batch=16, batches=2, dropout=0.0)
    work.student.train()
    gradients = []
    losses = []
    for loss in (lambda b, g: benchmark.our_loss(work, b, g), benchmark.ReleasedLoop(work).loss):
        work.student.zero_grad()
        found = loss(work.batches[1], torch_generator(3, "draws"))
        found.backward()
        losses.append(found.item())
        gradients.append({name: p.grad.clone() for name, p in work.student.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][name], rtol=1e-3, atol=1e-6, msg=name)


def test_speed_is_measured_in_examples_a_second(benchmark: ModuleType) -> None:
    work = benchmark.make_work(num_items=300, vector_size=12, batch=16, batches=2)
    speed = benchmark.measure(work, lambda b, g: benchmark.our_loss(work, b, g), 2)
    assert 1 < speed.wall < 1e6
    assert 1 < speed.processor < 1e6

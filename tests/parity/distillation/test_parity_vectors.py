"""Hint and HTD against loops, with the weights that the distillers drew."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.hint import HintDistiller, HintSettings
from dllm2rec.distillation.htd import HTDDistiller, HTDSettings
from dllm2rec.distillation.vectors import batch_items

V, D, DT, H = 20, 3, 5, 4
RNG = np.random.default_rng(2)
ITEMS = RNG.normal(size=(V, D))
VECTORS = RNG.normal(size=(V, DT))
BATCH = Batch(
    history=torch.tensor([[V, V, 3], [V, 7, 3], [19, 0, 11], [5, 6, 8]]),
    target=torch.tensor([7, 2, 3, 9]),
    row=torch.arange(4),
)


class Embedder:
    num_items = V

    def embed(self, items: Tensor) -> Tensor:
        return torch.from_numpy(ITEMS)[items]


def term(distiller: torch.nn.Module, *, epoch: int = 1) -> float:
    distiller.double().epoch(Embedder(), epoch, torch_generator(0, "epoch"))
    return distiller(Embedder(), torch.zeros(4, D, dtype=torch.float64), BATCH, torch_generator(1, "step")).item()


def items_of_step(most: int | None, generator: torch.Generator) -> list[int]:
    items = batch_items(BATCH, num_items=V, most=most, generator=generator).tolist()
    everything = {int(i) for i in [*BATCH.history.flatten(), *BATCH.target] if i < V}
    assert set(items) <= everything
    assert len(items) == len(set(items)) == min(most or V, len(everything))
    return items


def perceptron(x, first, first_bias, second, second_bias) -> list[float]:
    """Linear, ReLU, linear, one number at a time."""
    size, hidden = first.shape
    inner = [max(0.0, sum(x[d] * first[d, h] for d in range(size)) + first_bias[h]) for h in range(hidden)]
    return [sum(inner[h] * second[h, t] for h in range(hidden)) + second_bias[t] for t in range(second.shape[1])]


def numbers(distiller: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in distiller.named_parameters()}


def squared_distance(one, other) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("most", [None, 4])
def test_hint_agrees_with_a_slow_loop(most: int | None) -> None:
    settings = HintSettings(lambda_d=0.2, hidden=H, items_per_step=most)
    distiller = HintDistiller(
        vectors=torch.from_numpy(VECTORS), dim=D, settings=settings, generator=torch_generator(0, "first")
    )
    found, w = term(distiller), numbers(distiller)
    total = sum(
        squared_distance(VECTORS[i], perceptron(ITEMS[i], w["first"], w["first_bias"], w["second"], w["second_bias"]))
        for i in items_of_step(most, torch_generator(1, "step"))
    )
    assert found == pytest.approx(0.2 * total / 4, rel=1e-5)


def cosine(one, other) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def slow_topology(items: list[int], group: list[int]) -> float:
    total = 0.0
    for i, a in zip(items, group, strict=True):
        for j, b in zip(items, group, strict=True):
            teacher = cosine(VECTORS[i], VECTORS[j])
            if a == b and teacher > 0:
                total += (teacher - cosine(ITEMS[i], ITEMS[j])) ** 2
        for b in set(group):
            members = [j for j, c in zip(items, group, strict=True) if c == b]
            means = [np.mean([space[j] for j in members], axis=0) for space in (VECTORS, ITEMS)]
            total += (cosine(VECTORS[i], means[0]) - cosine(ITEMS[i], means[1])) ** 2
    return total


def slow_shares(items: list[int], w, noise, temperature: float, groups: int) -> list[list[float]]:
    shares = []
    for row, i in enumerate(items):
        logits = [
            sum(VECTORS[i, t] * w["selector"][t, k] for t in range(DT)) + w["selector_bias"][k] for k in range(groups)
        ]
        norm = sum(math.exp(x) for x in logits)
        cold = [(math.log(math.exp(x) / norm) + noise[row, k]) / temperature for k, x in enumerate(logits)]
        most = max(cold)
        share = [math.exp(x - most) for x in cold]
        shares.append([x / sum(share) for x in share])
    return shares


@pytest.mark.parametrize(("epoch", "temperature"), [(1, 1.0), (3, 1e-1), (5, 1e-2), (9, 1e-2)])
@pytest.mark.parametrize(("groups", "most"), [(3, None), (3, 5), (1, None)])
def test_htd_agrees_with_a_slow_loop(epoch: int, temperature: float, groups: int, most: int | None) -> None:
    settings = HTDSettings(
        lambda_d=0.2,
        balance=0.3,
        groups=groups,
        hidden=H,
        items_per_step=most,
        temperature_end=1e-2,
        anneal_epochs=4,
    )
    distiller = HTDDistiller(
        vectors=torch.from_numpy(VECTORS), dim=D, settings=settings, generator=torch_generator(0, "first")
    )
    found, w = term(distiller, epoch=epoch), numbers(distiller)
    assert distiller.temperature == pytest.approx(temperature)
    step = torch_generator(1, "step")
    items = items_of_step(most, step)
    noise = -torch.empty(len(items), groups).exponential_(generator=step).log().double().numpy()
    shares = slow_shares(items, w, noise, temperature, groups)
    hint = 0.0
    for i, share in zip(items, shares, strict=True):
        guess = np.zeros(DT)
        for k in range(groups):
            part = slice(k * H, (k + 1) * H)
            parts = (w["first"][:, part], w["first_bias"][part], w["second"][part], w["second_bias"][k])
            guess += share[k] * np.array(perceptron(ITEMS[i], *parts))
        hint += squared_distance(VECTORS[i], guess)
    topology = slow_topology(items, [share.index(max(share)) for share in shares])
    assert found == pytest.approx(0.2 * (0.3 * topology + 0.7 * hint) / 4, rel=1e-5)

"""The transformer against loops in NumPy that compute every position of every block."""

import math

import numpy as np
import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.factory import build_student
from dllm2rec.students.transformer import TransformerSettings

V, L, D = 12, 5, 4


def layer_norm(x, weights, name):
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + shift


def gelu(x):
    return np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x])


def slow_transformer(history, weights, blocks):
    """The vector of one history, item by item."""
    items = [item for item in history if item != V]
    count = len(items)
    states = [
        weights["table.offset"][item] * math.sqrt(D) + weights["positions.weight"][count - 1 - i]
        for i, item in enumerate(items)
    ]
    for b in range(blocks):
        w = {
            name.removeprefix(f"blocks.{b}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{b}.")
        }
        normed = [layer_norm(state, w, "attention_norm") for state in states]
        outputs = []
        for i in range(count):
            query = w["query.weight"] @ normed[i] + w["query.bias"]
            logits = [
                query @ (w["key.weight"] @ normed[j]) / np.sqrt(D) + w["ages.weight"][i - j, 0] for j in range(i + 1)
            ]
            shares = np.exp(logits) / np.exp(logits).sum()
            values = [w["value.weight"] @ normed[j] + w["value.bias"] for j in range(i + 1)]
            mixed = sum(share * value for share, value in zip(shares, values, strict=True))
            attended = states[i] + w["mix.weight"] @ mixed + w["mix.bias"]
            inner = gelu(w["inner.weight"] @ layer_norm(attended, w, "forward_norm") + w["inner.bias"])
            outputs.append(attended + w["outer.weight"] @ inner + w["outer.bias"])
        states = outputs
    return layer_norm(states[-1], weights, "norm")


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_transformer_agrees_with_a_slow_loop(blocks: int) -> None:
    settings = TransformerSettings(dim=D, blocks=blocks, inner=3)
    student = build_student(settings, num_items=V, history=L, item_vectors=None, generator=torch_generator(3, "x"))
    student = student.double().eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(generator=torch_generator(4, str(parameter.shape)))
    weights = {name: value.numpy() for name, value in student.state_dict().items()}
    history = np.random.default_rng(0).integers(0, V, (6, L))
    history[1, :2] = history[2, :4] = V
    expected = np.stack([slow_transformer(row, weights, blocks) for row in history])
    found = student.encode(torch.from_numpy(history)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

"""GRU4Rec and Caser against loops in NumPy."""

import numpy as np
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.base import Student
from dllm2rec.students.caser import CaserSettings
from dllm2rec.students.factory import StudentSettings, build_student
from dllm2rec.students.gru4rec import GRU4RecSettings

V, L, D = 12, 5, 4


def build(settings: StudentSettings) -> tuple[Student, dict[str, np.ndarray]]:
    student = build_student(settings, num_items=V, history=L, item_vectors=None, generator=torch_generator(3, "x"))
    student = student.double().eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(generator=torch_generator(4, str(parameter.shape)))
    return student, {name: value.numpy() for name, value in student.state_dict().items()}


def histories() -> np.ndarray:
    history = np.random.default_rng(0).integers(0, V, (6, L))
    history[1, :2] = history[2, :4] = history[3] = V
    return history


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_gru(history, w):
    state = np.zeros(D)
    for item in history:
        if item == V:
            continue
        from_input = w["gru.weight_ih_l0"] @ w["table.offset"][item] + w["gru.bias_ih_l0"]
        from_state = w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]
        reset = sigmoid(from_input[:D] + from_state[:D])
        update = sigmoid(from_input[D : 2 * D] + from_state[D : 2 * D])
        new = np.tanh(from_input[2 * D :] + reset * from_state[2 * D :])
        state = (1 - update) * new + update * state
    return state


def slow_caser(history, w, heights):
    image = np.stack([np.zeros(D) if item == V else w["table.offset"][item] for item in history])
    features = []
    for i, height in enumerate(heights):
        kernels, bias = w[f"horizontal.{i}.weight"][:, 0], w[f"horizontal.{i}.bias"]
        for f in range(len(kernels)):
            places = [np.sum(kernels[f] * image[t : t + height]) + bias[f] for t in range(L - height + 1)]
            features.append(max(0.0, *places))
    for f in range(len(w["vertical.weight"])):
        for d in range(D):
            features.append(np.sum(w["vertical.weight"][f, 0, :, 0] * image[:, d]) + w["vertical.bias"][f])
    return np.maximum(w["dense.weight"] @ np.array(features) + w["dense.bias"], 0)


def test_gru4rec_agrees_with_a_slow_loop() -> None:
    student, weights = build(GRU4RecSettings(dim=D))
    expected = np.stack([slow_gru(row, weights) for row in histories()])
    found = student.encode(torch.from_numpy(histories())).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_caser_agrees_with_a_slow_loop() -> None:
    student, weights = build(CaserSettings(dim=D, heights=(2, 3), horizontal_filters=3, vertical_filters=2))
    expected = np.stack([slow_caser(row, weights, (2, 3)) for row in histories()])
    found = student.encode(torch.from_numpy(histories())).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

"""One small case that the parity tests of the methods share: given scores, lists, histories."""

import math

import numpy as np
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.lessons import Lessons

V, P, M, L = 30, 7, 12, 4
RNG = np.random.default_rng(3)
LISTS = np.stack([RNG.permutation(V)[:M] for _ in range(P)])
DISTANCES = np.sort(RNG.normal(5000, 1000, (P, M)), axis=1)
HISTORY = RNG.integers(0, V + 1, (P, L))
TARGET = RNG.integers(0, V, P)
TARGET[:2] = LISTS[:2, 1]  # two of the true items are in the lists
SCORES = RNG.normal(0, 1.5, (P, V))  # of the labelled examples
PLACE = np.array([3, -1, 6, 0, -1, 5, 1, 2, 4])  # of nine training examples
ROW = np.array([2, 0, 1, 6, 8, 3])  # the batch; the third has no label
PLACES = [int(place) for place in PLACE[ROW] if place >= 0]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


class Given:
    """A scorer with given scores: the sequence vector of a labelled example is its place in one-hot form."""

    num_items = V

    def encode(self, history):
        """Recognise each example by its history and target."""
        known = torch.from_numpy(HISTORY)
        return torch.stack([(known == one).all(dim=1).float() for one in history])

    def scores(self, hidden):
        return hidden @ torch.from_numpy(SCORES).to(hidden.dtype)

    def score_items(self, hidden, items):
        return self.scores(hidden).gather(1, items)


def lessons(depth: int = M) -> Lessons:
    return Lessons(
        ranked_items=torch.from_numpy(LISTS[:, :depth].astype(np.int32)),
        distances=torch.from_numpy(DISTANCES[:, :depth]),
        target_distance=torch.zeros(P),
        history=torch.from_numpy(HISTORY),
        target=torch.from_numpy(TARGET),
        time=torch.zeros(P),
        place=torch.from_numpy(PLACE),
        num_items=V,
    )


def term(distiller, *, epoch: int = 1) -> float:
    """What a distiller adds to the loss of the batch, after the draws of an epoch."""
    distiller.epoch(Given(), epoch, torch_generator(5, "epoch"))
    place = torch.from_numpy(PLACE[ROW])
    hidden = torch.eye(P, dtype=torch.float64)[place.clamp(min=0)]
    batch = Batch(history=torch.zeros(len(ROW), L), target=torch.zeros(len(ROW)), row=torch.from_numpy(ROW))
    return distiller(Given(), hidden, batch, torch_generator(6, "step")).item()


def slow_permutation(interesting: list[float], uninteresting: list[float]) -> float:
    """The relaxed permutation loss, term by term."""
    total = 0.0
    for k, score in enumerate(interesting):
        below = sum(math.exp(s) for s in interesting[k:]) + sum(math.exp(s) for s in uninteresting)
        total -= score - math.log(below)
    return total

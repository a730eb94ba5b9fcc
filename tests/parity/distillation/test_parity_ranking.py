"""Ranking distillation against loops in NumPy, written from the formulas: both variants, each single difference."""

import math

import numpy as np
import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.lessons import take_lessons
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.knowledge import Labels
from dllm2rec.losses.bce import BCELoss
from dllm2rec.losses.dros import DROSLoss, RobustTerm
from dllm2rec.losses.negatives import uniform_negatives

V, N, K, ALPHA, BETA_ROBUST = 25, 9, 4, 0.7, 1.5
RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 1.5, (6, V))
LISTS = np.stack([RNG.permutation(V)[: K + 2] for _ in range(N)])
DISTANCES = np.sort(RNG.normal(5000, 1000, (N, K + 2)), axis=1)
TARGET_DISTANCE = RNG.normal(5000, 1000, N)
LABEL_ROW = np.array([3, -1, 8, 0, -1, 5, 1])  # of seven examples; labels 2, 4, 6 and 7 belong to none
ROW = np.array([2, 0, 1, 6, 4, 3])  # the batch
TARGET = RNG.integers(0, V, 6)
LABELS = Labels(
    example_id=np.arange(N),
    ranked_items=LISTS,
    distances=DISTANCES,
    target_distance=TARGET_DISTANCE,
    generated_text=[""] * N,
)
TRAINING = Examples(
    example_id=np.arange(7),
    user=np.arange(7),
    history=np.zeros((7, 2), np.int32),
    target=np.zeros(7, np.int32),
    time=np.arange(7),
    num_items=V,
)
POPULARITY = RNG.integers(0, 60, V)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def median(values) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def normalised(values, centres):
    residuals = [v - c for v, c in zip(values, centres, strict=True)]
    spread = 1.4826 * median([abs(r) for r in residuals])
    return [min(3.0, max(-3.0, r / spread)) for r in residuals]


def slow_confidence(settings):
    """The confidence of each (label row, place)."""
    used = sorted({int(row) for row in LABEL_ROW if row >= 0})
    found = {}
    if settings.confidence == "sequence":
        values = [TARGET_DISTANCE[n] for n in used]
        raw = [math.exp(-z) for z in normalised(values, [median(values)] * len(used))]
        mean = sum(raw) / len(raw)
        for n, weight in zip(used, raw, strict=True):
            for i in range(K):
                found[n, i] = weight / mean / K
        return found
    places = [(n, i) for n in used for i in range(K)]
    z = normalised([DISTANCES[p] for p in places], [median(DISTANCES[n, :K]) for n, _ in places])
    raw = {place: math.exp(-value) for place, value in zip(places, z, strict=True)}
    for n, i in places:
        found[n, i] = raw[n, i] / sum(raw[n, j] for j in range(K))
    return found


def slow_robust(s, i):
    everything = sum(count + 1 for count in POPULARITY)
    p = [((count + 1) / everything) ** 0.05 for count in POPULARITY]
    inner = sum(math.exp(p[j] * SCORES[s, j] ** 2 / BETA_ROBUST) for j in range(V) if j != i)
    return math.log(inner + math.exp(p[i] * (SCORES[s, i] - 1) ** 2 / BETA_ROBUST))


def slow_term(method, negatives, robust):
    differences = decide(method)
    confidence = slow_confidence(differences)
    total = 0.0
    for s in range(6):
        n = LABEL_ROW[ROW[s]]
        if n < 0:
            continue
        top = sorted(range(V), key=lambda j, s=s: -SCORES[s, j])[:K]
        position = [math.exp(-(i + 1) / method.beta) for i in range(K)]
        weights = [
            method.gamma_position * position[i] / sum(position)
            + method.gamma_confidence * confidence[n, i]
            + method.gamma_consistency * (LISTS[n, i] in top)
            for i in range(K)
        ]
        if differences.renormalise:
            weights = [w / sum(weights) for w in weights]
        for i in range(K):
            item = LISTS[n, i]
            loss = -math.log(sigmoid(SCORES[s, item]))
            if differences.sampled_negative_term:
                loss -= math.log(sigmoid(1 - SCORES[s, negatives[s]]))
            if robust and differences.dros_on_candidates:
                loss += ALPHA * slow_robust(s, item)
            total += weights[i] * loss
    return method.lambda_d * total / 6


class Given:
    """A scorer of six given rows: a sequence vector is its row in one-hot form."""

    num_items = V

    def scores(self, hidden):
        return hidden @ torch.from_numpy(SCORES).to(hidden.dtype)

    def score_items(self, hidden, items):
        return self.scores(hidden).gather(1, items)


def fast_term(method, robust):
    base = DROSLoss(robust=RobustTerm(popularity=torch.from_numpy(POPULARITY), beta=BETA_ROBUST), alpha=ALPHA)
    distiller = RankingDistiller(
        lessons=take_lessons(LABELS, rows=LABEL_ROW, training=TRAINING, depth=K),
        settings=method,
        loss=base if robust else BCELoss(),
    )
    batch = Batch(history=torch.zeros(6, 2), target=torch.from_numpy(TARGET), row=torch.from_numpy(ROW))
    return distiller(Given(), torch.eye(6), batch, torch_generator(5, "g")).item()


def drawn(method, robust):
    """The negatives that the distiller draws: for the labelled of a batch, or for all where it scores all."""
    target = torch.from_numpy(TARGET)
    rows = np.arange(6) if robust and decide(method).dros_on_candidates else np.flatnonzero(LABEL_ROW[ROW] >= 0)
    items = uniform_negatives(target[rows], num_items=V, count=1, generator=torch_generator(5, "g"))
    return dict(zip(rows.tolist(), items.squeeze(1).tolist(), strict=True))


DIFFERENCES = [
    {},
    {"confidence": "sequence"},
    {"confidence": "item"},
    {"sampled_negative_term": True},
    {"sampled_negative_term": False},
    {"dros_on_candidates": True},
    {"dros_on_candidates": False},
    {"renormalise": True},
    {"renormalise": False},
    {"gamma_position": 0.0},
    {"gamma_confidence": 0.0},
    {"gamma_consistency": 0.0},
    {"beta": 3.0},
]


@pytest.mark.parametrize("robust", [False, True], ids=["bce", "dros"])
@pytest.mark.parametrize("changes", DIFFERENCES, ids=str)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_ranking_distillation_agrees_with_a_slow_loop(variant: str, changes: dict, robust: bool) -> None:
    method = DLLM2RecSettings(**({"variant": variant, "top_k": K, "lambda_d": 0.4} | changes))
    expected = slow_term(method, drawn(method, robust), robust)
    assert fast_term(method, robust) == pytest.approx(expected, rel=1e-5)


def test_every_difference_changes_the_value() -> None:
    base = {
        variant: fast_term(DLLM2RecSettings(variant=variant, top_k=K), robust=True) for variant in ("paper", "released")
    }
    for changes in DIFFERENCES[1:]:
        found = [
            fast_term(DLLM2RecSettings(**({"variant": variant, "top_k": K} | changes)), robust=True) == value
            for variant, value in base.items()
        ]
        assert not all(found), changes

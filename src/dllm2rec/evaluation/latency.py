"""How long an answer takes."""

import statistics
import time

import numpy as np
import torch

from dllm2rec.data import Examples
from dllm2rec.evaluation.metrics import TOP
from dllm2rec.evaluation.ranks import ScoreFunction, histories_for, score_histories

USERS_AT_ONCE = 256


@torch.inference_mode()
def seconds_per_1000(score: ScoreFunction, examples: Examples, *, repeats: int = 3) -> float:
    """Measure the seconds that 1,000 users take, from history to their 20 best items.

    Args:
        score: scores the catalogue.
        examples: whose histories are asked; the first 1,000, or all, repeated to 1,000.
        repeats: the median of so many runs counts; one more warms up.

    Raises:
        ValueError: there is no example.
    """
    if len(examples) == 0:
        raise ValueError("there is no history to ask with")
    asked = examples.take(np.resize(np.arange(len(examples)), 1000))
    parts = [slice(first, first + USERS_AT_ONCE) for first in range(0, len(asked), USERS_AT_ONCE)]
    batches = [(histories_for(score, asked, rows), asked.user[rows]) for rows in parts]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for history, user in batches:
            score_histories(score, history, user).topk(min(TOP, examples.num_items), dim=1)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])

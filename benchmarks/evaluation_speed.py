"""How fast is the ranking of the whole catalogue, against sorting it?

Work: 14,980 sequences, 17,408 items, vectors of 64 values (the size of the paper's Games test). Prints seconds of each
and their ratio, measured alternately in this run.

    python benchmarks/evaluation_speed.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from dllm2rec.data import Examples
from dllm2rec.evaluation.ranks import rank_targets

SEQUENCES, ITEMS, DIM, REPEATS = 14_980, 17_408, 64, 3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    generator = np.random.default_rng(0)
    examples = Examples(
        example_id=np.arange(SEQUENCES, dtype=np.int64),
        user=np.zeros(SEQUENCES, np.int32),
        history=np.arange(SEQUENCES, dtype=np.int32)[:, None] % ITEMS,
        target=generator.integers(0, ITEMS, SEQUENCES).astype(np.int32),
        time=np.zeros(SEQUENCES, np.int64),
        num_items=ITEMS,
    )
    hidden, table = torch.randn(ITEMS, DIM), torch.randn(ITEMS, DIM)

    def score(history: torch.Tensor) -> torch.Tensor:
        return hidden[history[:, -1]] @ table.T

    def by_sorting() -> None:
        for start in range(0, SEQUENCES, 512):
            rows = slice(start, start + 512)
            order = score(torch.from_numpy(examples.history[rows].astype(np.int64))).argsort(dim=1, descending=True)
            target = torch.from_numpy(examples.target[rows].astype(np.int64)).unsqueeze(1)
            (order == target).nonzero()

    ways: dict[str, Callable[[], object]] = {
        "ranks": lambda: rank_targets(score, examples),
        "ranks and top 20": lambda: rank_targets(score, examples, top_k=20),
        "sorting": by_sorting,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, work in ways.items():
            times[name].append(seconds(work))
    base = statistics.median(times["sorting"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:18} {middle:6.2f} s   {base / middle:5.1f} times as fast as sorting")


if __name__ == "__main__":
    main()

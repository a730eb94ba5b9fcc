"""How fast a bundle answers: one user, many users, a million items; and the same student by PyTorch.

    python benchmarks/serving_speed.py [--rounds 2000]

Weights are random: time does not depend on them. Absolute times depend on the machine, the ratio in the last line less.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dllm2rec.experiments.exporting import write_manifest
from dllm2rec.serving.approximate import write_index
from dllm2rec.serving.bundle import INDEX
from dllm2rec.serving.recommender import Recommender
from random_bundle import build_random, write_bundle

HISTORY, K = 10, 20


def milliseconds(work: Callable[[], object], rounds: int) -> np.ndarray:
    for _ in range(20):
        work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        student = build_random(17_408)
        recommender = write_bundle(student, Path(folder) / "small")
        histories = generator.integers(0, 17_408, (5000, HISTORY)).tolist()
        one = milliseconds(lambda: recommender.recommend(histories[:1], k=K), rounds)
        print(f"one user, 17,408 items: p50 {np.median(one):.2f} ms, p99 {np.percentile(one, 99):.2f} ms")
        tensor = torch.tensor(histories[:1])
        with torch.inference_mode():
            plain = milliseconds(lambda: student(tensor).topk(K), rounds)
        print(f"the same by PyTorch: p50 {np.median(plain):.2f} ms, p99 {np.percentile(plain, 99):.2f} ms")
        start = time.perf_counter()
        recommender.recommend(histories, k=K)
        print(f"batch: {len(histories) / (time.perf_counter() - start):,.0f} users/s at 17,408 items")
        many = write_bundle(build_random(1_000_000), Path(folder) / "large")
        exact = milliseconds(lambda: many.recommend(histories[:1], k=K), max(20, rounds // 20))
        print(f"one user, 1,000,000 items, exact: p50 {np.median(exact):.1f} ms")
        start = time.perf_counter()
        write_index(many.bundle.path / INDEX, many.bundle.output, None)
        built = time.perf_counter() - start
        write_manifest(many.bundle.path, many.bundle.manifest)
        quick = Recommender.load(many.bundle.path, approximate=True)
        fast = milliseconds(lambda: quick.recommend(histories[:1], k=K), max(20, rounds // 20))
        sample = histories[:100]
        pairs = zip(many.recommend(sample, k=K), quick.recommend(sample, k=K), strict=True)
        recall = np.mean([len(set(a.items) & set(b.items)) / K for a, b in pairs])
        print(
            f"the same by the approximate index: p50 {np.median(fast):.1f} ms, recall@{K} {recall:.3f} (random vectors "
            f"are its worst case), built in {built:.0f} s"
        )
        print(f"PyTorch's median over ours, one user: {np.median(plain) / np.median(one):.2f}")


if __name__ == "__main__":
    main()

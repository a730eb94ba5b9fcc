"""How fast a bundle answers: one user, many users, a million items; the same student by PyTorch; a teacher that writes.

    python benchmarks/serving_speed.py [--rounds 2000] [--llm smollm2-135m] [--index]

Weights are random: time does not depend on them. Prompts are random tokens, as long as those of ten titles of toys,
and each gets as many tokens as a title there has. Absolute times depend on the machine, ratios less; RecTools' SASRec
is in benchmarks/peers.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dllm2rec.bundling.bundles import write_manifest
from dllm2rec.serving.approximate import write_index
from dllm2rec.serving.bundle import INDEX
from dllm2rec.serving.recommender import Recommender
from dllm2rec.teachers.generation import write
from dllm2rec.teachers.grounding import text_states
from dllm2rec.teachers.llm import load_llm
from random_bundle import build_random, write_bundle

HISTORY, K = 10, 20
PROMPT_TOKENS, TITLE_TOKENS, PROMPTS = 140, 12, 64


def milliseconds(work: Callable[[], object], rounds: int) -> np.ndarray:
    for _ in range(20):
        work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


def teacher_milliseconds(name: str) -> float:
    """Milliseconds a user of a language model that writes a title and reads it once more, in batches of 32."""
    llm = load_llm(name)
    prompts = np.random.default_rng(0).integers(1000, 2000, (PROMPTS, PROMPT_TOKENS)).tolist()
    start = time.perf_counter()
    written = write(llm, prompts, prefix=[], ends=[], max_new_tokens=TITLE_TOKENS, batch_size=32)
    text_states(llm, [one.tokens for one in written])
    return 1000 * (time.perf_counter() - start) / PROMPTS


def approximate(many: Recommender, histories: list[list[int]], rounds: int) -> None:
    """Build the index of a bundle and print how fast it answers and what it misses."""
    start = time.perf_counter()
    write_index(many.bundle.path / INDEX, many.bundle.output, None)
    built = time.perf_counter() - start
    write_manifest(many.bundle.path, many.bundle.manifest)
    quick = Recommender.load(many.bundle.path, approximate=True)
    fast = milliseconds(lambda: quick.recommend(histories[:1], k=K), rounds)
    sample = histories[:100]
    pairs = zip(many.recommend(sample, k=K), quick.recommend(sample, k=K), strict=True)
    recall = np.mean([len(set(a.items) & set(b.items)) / K for a, b in pairs])
    print(
        f"the same by the approximate index: p50 {np.median(fast):.1f} ms, recall@{K} {recall:.3f} (random vectors "
        f"are its worst case), built in {built:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--llm", help="a teacher to measure beside them, such as smollm2-135m")
    parser.add_argument("--index", action="store_true", help="the approximate index too; building it takes minutes")
    arguments = parser.parse_args()
    rounds = arguments.rounds
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
        batch = len(histories) / (time.perf_counter() - start)
        print(f"batch: {batch:,.0f} users/s at 17,408 items")
        if arguments.llm:
            written = teacher_milliseconds(arguments.llm)
            print(
                f"{arguments.llm} that writes a title: {written:.0f} ms a user in batches; ours in batches is "
                f"{written * batch / 1000:,.0f} times as fast"
            )
        many = write_bundle(build_random(1_000_000), Path(folder) / "large")
        exact = milliseconds(lambda: many.recommend(histories[:1], k=K), max(20, rounds // 20))
        print(f"one user, 1,000,000 items, exact: p50 {np.median(exact):.1f} ms")
        if arguments.index:
            approximate(many, histories, max(20, rounds // 20))
        print(f"PyTorch's median over ours, one user: {np.median(plain) / np.median(one):.2f}")


if __name__ == "__main__":
    main()

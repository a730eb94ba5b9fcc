"""How fast a bundle answers: one user, many users, a million items; and the same student by PyTorch.

    python benchmarks/serving_speed.py [--rounds 2000]

Weights are random: time does not depend on them. Absolute times depend on the machine, the ratio in the last line less.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from dllm2rec.core.files import hash_file
from dllm2rec.core.seeding import torch_generator
from dllm2rec.experiments.exporting import write_encoder
from dllm2rec.serving.bundle import CARD, ENCODER, FILES, ITEMS, MARKER, TABLE, BundleManifest
from dllm2rec.serving.recommender import Recommender
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.transformer import TransformerSettings

DIM, HISTORY, K = 64, 10, 20


def build(num_items: int) -> Student:
    settings = TransformerSettings(dim=DIM, output="tied")
    generator = torch_generator(0, "student")
    return build_student(settings, num_items=num_items, history=HISTORY, item_vectors=None, generator=generator).eval()


def bundle(student: Student, path: Path) -> Recommender:
    path.mkdir()
    table = student.table.fold().detach().numpy()
    (path / ITEMS).write_text(json.dumps([[n, f"item {n}"] for n in range(len(table))]))
    save_file({"input": table, "popularity": np.ones(len(table), np.float32)}, path / TABLE)
    write_encoder(student, path / ENCODER)
    (path / CARD).write_text("")
    manifest = BundleManifest(
        student="random",
        num_items=len(table),
        dim=DIM,
        history=HISTORY,
        dataset={},
        metrics={},
        settings={},
        software={},
        files={name: hash_file(path / name) for name in FILES},
    )
    (path / MARKER).write_text(manifest.model_dump_json())
    return Recommender.load(path)


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
        student = build(17_408)
        recommender = bundle(student, Path(folder) / "small")
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
        many = bundle(build(1_000_000), Path(folder) / "large")
        exact = milliseconds(lambda: many.recommend(histories[:1], k=K), max(20, rounds // 20))
        print(f"one user, 1,000,000 items, exact: p50 {np.median(exact):.1f} ms")
        print(f"PyTorch's median over ours, one user: {np.median(plain) / np.median(one):.2f}")


if __name__ == "__main__":
    main()

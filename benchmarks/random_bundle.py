"""A bundle of random weights, for whoever asks how fast or how sound serving is, not how good."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dllm2rec.bundling.exporting import write_student
from dllm2rec.core.files import hash_file
from dllm2rec.core.seeding import torch_generator
from dllm2rec.serving.bundle import CARD, ENCODER, EXAMPLES, FILES, ITEMS, MARKER, TABLE
from dllm2rec.serving.manifest import BundleManifest
from dllm2rec.serving.recommender import Recommender
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.transformer import TransformerSettings


def build_random(num_items: int, *, dim: int = 64, history: int = 10, seed: int = 0) -> Student:
    """Build an untrained student."""
    settings = TransformerSettings(dim=dim, output="tied")
    generator = torch_generator(seed, "student")
    return build_student(settings, num_items=num_items, history=history, item_vectors=None, generator=generator).eval()


def write_bundle(student: Student, path: Path, *, name: str = "random") -> Recommender:
    """Write a student as a bundle; its items have the ids 0 .. V-1."""
    path.mkdir()
    table = student.table.fold().detach().numpy()
    (path / ITEMS).write_text(json.dumps([[item, f"item {item}"] for item in range(len(table))]))
    (path / EXAMPLES).write_text(json.dumps([{"history": [0, 1], "next": 2, "wrote": "item 2"}]))
    save_file({"input": table, "popularity": np.arange(len(table), dtype=np.float32)}, path / TABLE)
    write_student(student, path / ENCODER)
    (path / CARD).write_text("")
    manifest = BundleManifest(
        student=name,
        num_items=len(table),
        dim=student.dim,
        history=student.history,
        dataset={},
        metrics={},
        settings={},
        software={},
        files={file: hash_file(path / file) for file in FILES},
    )
    (path / MARKER).write_text(manifest.to_json())
    return Recommender.load(path)

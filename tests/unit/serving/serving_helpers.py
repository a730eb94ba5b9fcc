"""Bundles: of random weights, by the maker that the benchmarks use, and of students that were trained for a moment."""

import importlib.util
import sys
from pathlib import Path

from dllm2rec.data import Dataset
from dllm2rec.distillation.methods import VectorsMethod
from dllm2rec.knowledge import Knowledge
from dllm2rec.settings.config import TrainSettings
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.training import train

ITEMS = 30  # of the small dataset
RANDOM_ITEMS = 60
SMALL = {"protocol": "paper", "training": {"epochs": 1, "batch_size": 32}}


def write_random_bundles(folder: Path) -> list[Path]:
    """Write two bundles with different weights; their items have the ids 0 .. 59."""
    file = Path(__file__).parents[3] / "benchmarks" / "random_bundle.py"
    spec = importlib.util.spec_from_file_location("random_bundle", file)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    sys.modules["random_bundle"] = maker
    spec.loader.exec_module(maker)
    for seed in (0, 1):
        student = maker.build_random(RANDOM_ITEMS, dim=8, history=4, seed=seed)
        maker.write_bundle(student, folder / str(seed), name=f"student {seed}")
    return [folder / "0", folder / "1"]


def trained(dataset: Dataset, out: Path, knowledge: Knowledge | None = None, **student: object) -> Run:
    """Train a student for one epoch."""
    values = {"student": {"dim": 8, **student}, "method": VectorsMethod() if knowledge else {"kind": "none"}, **SMALL}
    return train(dataset, TrainSettings.model_validate(values), out=out, knowledge=knowledge)

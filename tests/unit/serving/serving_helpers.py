"""Bundles of random weights, by the maker that the benchmarks use."""

import importlib.util
import sys
from pathlib import Path

ITEMS = 60


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
        student = maker.build_random(ITEMS, dim=8, history=4, seed=seed)
        maker.write_bundle(student, folder / str(seed), name=f"student {seed}")
    return [folder / "0", folder / "1"]

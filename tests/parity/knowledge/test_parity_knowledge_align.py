"""`align` against a dictionary and a loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dllm2rec.data import Dataset, Examples
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, Labels
from dllm2rec.knowledge.align import align

MANIFEST = KnowledgeManifest(
    dataset_hash="abc",
    num_items=1,
    teacher="knn",
    depth=0,
)


@dataclass
class FakeDataset:
    content_hash: str = "abc"
    path: Path = Path("dataset")


@pytest.mark.parametrize("seed", range(20))
def test_align_agrees_with_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    known = np.unique(generator.integers(0, 60, size=generator.integers(0, 40)))
    asked = generator.permutation(60)[: generator.integers(0, 60)].astype(np.int64)
    size = len(known)
    knowledge = Knowledge(
        path=Path("knowledge"),
        manifest=MANIFEST,
        labels=Labels(
            example_id=known.astype(np.int64),
            ranked_items=np.zeros((size, 0), np.int32),
            distances=np.zeros((size, 0), np.float32),
            target_distance=np.zeros(size, np.float32),
            generated_text=[""] * size,
        ),
        item_vectors=None,
    )
    examples = Examples(
        example_id=asked,
        user=np.zeros(len(asked), np.int32),
        history=np.zeros((len(asked), 1), np.int32),
        target=np.zeros(len(asked), np.int32),
        time=np.zeros(len(asked), np.int64),
        num_items=1,
    )
    place = {int(example): row for row, example in enumerate(known)}
    expected = [place.get(int(example), -1) for example in asked]
    assert align(knowledge, cast("Dataset", FakeDataset()), examples).tolist() == expected

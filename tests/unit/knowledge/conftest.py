from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.knowledge import KnowledgeManifest, Labels

MakeLabels = Callable[[Sequence[int]], Labels]
MakeDataset = Callable[..., Dataset]


@pytest.fixture
def manifest() -> KnowledgeManifest:
    return KnowledgeManifest(
        dataset_hash="abc",
        num_items=9,
        teacher="bigrec",
        model="tiny",
        revision="r1",
        settings={"beams": 4},
        depth=3,
        vector_size=2,
    )


@pytest.fixture
def make_labels() -> MakeLabels:
    """Labels that follow from the example ids alone, so that whoever writes them writes the same."""

    def make(ids: Sequence[int]) -> Labels:
        example_id = np.array(ids, dtype=np.int64)
        items = (example_id[:, None] + np.arange(3) * 2) % 9
        return Labels(
            example_id=example_id,
            ranked_items=items.astype(np.int32),
            distances=(items * 0.1 + example_id[:, None]).astype(np.float32),
            target_distance=(example_id / 3).astype(np.float32),
            generated_text=[f"title “{value}”" for value in ids],
        )

    return make


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """A dataset of 40 users with 4 to 15 of 12 items each, written under the name given."""

    def make(name: str = "dataset", *, seed: int = 0) -> Dataset:
        generator = np.random.default_rng(seed)
        rows = ["user_id,item_id,timestamp"]
        for user in range(40):
            start = generator.integers(1_000_000)
            rows += [
                f"u{user},{generator.integers(12)},{start + 60 * place}" for place in range(generator.integers(4, 16))
            ]
        log, items = tmp_path / f"{name}-log.csv", tmp_path / f"{name}-items.csv"
        log.write_text("\n".join(rows) + "\n")
        items.write_text("item_id,title\n" + "".join(f"{item},Title {item}\n" for item in range(12)))
        return write_dataset(read_log(log, items), PaperSplit(), tmp_path / name, name=name)

    return make

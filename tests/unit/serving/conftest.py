"""A small dataset, text vectors, and bundles, which the tests of serving share."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from serving_helpers import ITEMS, write_random_bundles

from dllm2rec.data import Dataset, LeaveOneOutSplit, Log, write_dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of random weights."""
    return write_random_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 users, external ids that are numbers from 1000."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user}", int(generator.integers(ITEMS)), 100 * step + user)
        for user in range(40)
        for step in range(3 + user % 6)
    ]
    interactions = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame(
        {"index": range(ITEMS), "item_id": range(1000, 1000 + ITEMS), "title": [f"title {n}" for n in range(ITEMS)]}
    )
    log = Log(interactions, items.cast({"index": pl.Int32}))
    return write_dataset(log, LeaveOneOutSplit(history=4), tmp_path_factory.mktemp("data") / "dataset", name="small")


@pytest.fixture(scope="session")
def knowledge(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    out = tmp_path_factory.mktemp("knowledge") / "vectors"
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=ITEMS,
        teacher="test",
        depth=0,
        vector_size=6,
    )
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 6)).astype(np.float32)
    KnowledgeWriter(out, manifest).write_item_vectors(vectors)
    return Knowledge.load(out)

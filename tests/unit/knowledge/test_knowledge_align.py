from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.knowledge.align import align

MakeDataset = Callable[..., Dataset]


def write(path: Path, manifest: KnowledgeManifest, dataset: Dataset, example_id: np.ndarray) -> Knowledge:
    size = len(example_id)
    manifest = manifest.model_copy(
        update={"dataset_hash": dataset.content_hash, "num_items": 12, "depth": 1, "vector_size": None}
    )
    writer = KnowledgeWriter(path, manifest)
    writer.append(
        Labels(
            example_id=example_id,
            ranked_items=(example_id % 12).astype(np.int32)[:, None],
            distances=np.zeros((size, 1), np.float32),
            target_distance=np.zeros(size, np.float32),
            generated_text=[""] * size,
        )
    )
    return Knowledge.load(path)


def test_every_example_gets_its_own_label_in_any_order(
    tmp_path: Path, manifest: KnowledgeManifest, make_dataset: MakeDataset
) -> None:
    dataset = make_dataset()
    train = dataset.examples("train")
    order = np.random.default_rng(1).permutation(len(train))
    straight = write(tmp_path / "a", manifest, dataset, train.example_id)
    shuffled = write(tmp_path / "b", manifest, dataset, train.example_id[order])
    rows = align(straight, dataset, train)
    np.testing.assert_array_equal(straight.labels.example_id[rows], train.example_id)
    np.testing.assert_array_equal(align(shuffled, dataset, train), rows)
    np.testing.assert_array_equal(align(straight, dataset, train.take(order)), rows[order])


def test_partial_coverage(tmp_path: Path, manifest: KnowledgeManifest, make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    train = dataset.examples("train")
    labelled = np.arange(0, len(train), 3)
    knowledge = write(tmp_path / "k", manifest, dataset, train.example_id[labelled])
    rows = align(knowledge, dataset, train)
    np.testing.assert_array_equal(np.flatnonzero(rows >= 0), labelled)
    assert (align(knowledge, dataset, dataset.examples("test")) == -1).all()


def test_no_labels(tmp_path: Path, manifest: KnowledgeManifest, make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    knowledge = write(tmp_path / "k", manifest, dataset, np.empty(0, np.int64))
    assert (align(knowledge, dataset, dataset.examples("train")) == -1).all()


def test_another_dataset_is_refused_with_both_hashes(
    tmp_path: Path, manifest: KnowledgeManifest, make_dataset: MakeDataset
) -> None:
    dataset, other = make_dataset(), make_dataset("other", seed=1)
    knowledge = write(tmp_path / "k", manifest, dataset, dataset.examples("train").example_id)
    with pytest.raises(UserError, match="another dataset") as caught:
        align(knowledge, other, other.examples("train"))
    assert dataset.content_hash in str(caught.value)
    assert other.content_hash in str(caught.value)

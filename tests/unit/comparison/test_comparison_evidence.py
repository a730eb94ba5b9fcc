"""What is found beside runs: knowledge that went on, and knowledge that is another."""

from pathlib import Path

import numpy as np
import pytest

from dllm2rec.comparison.evidence import gather
from dllm2rec.data import Dataset, Split
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.settings.config import TrainSettings
from dllm2rec.workflow.training import train

DEPTH, SIZE = 10, 6


def label(dataset: Dataset, out: Path, rows: slice, *, split: Split = "train", seed: int = 0) -> Knowledge:
    """Label some examples at random, beside what is labelled already."""
    draw = np.random.default_rng(seed)
    ids = dataset.examples(split).example_id[rows]
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="test",
        seed=seed,
        depth=DEPTH,
        vector_size=SIZE,
    )
    writer = KnowledgeWriter(out, manifest)
    if not writer.has_item_vectors():
        writer.write_item_vectors(draw.normal(size=(dataset.num_items, SIZE)).astype(np.float32))
    writer.append(
        Labels(
            example_id=ids,
            ranked_items=np.stack([draw.permutation(dataset.num_items)[:DEPTH] for _ in ids]).astype(np.int32),
            distances=np.sort(draw.random((len(ids), DEPTH)), axis=1).astype(np.float32),
            target_distance=draw.random(len(ids)).astype(np.float32),
            generated_text=[""] * len(ids),
        )
    )
    return Knowledge.load(out)


def test_labels_that_are_added_take_no_reference_away(small: Dataset, tmp_path: Path) -> None:
    values = {"protocol": "paper", "method": {"kind": "dllm2rec"}, "student": {"dim": 8}, "training": {"epochs": 1}}
    knowledge = label(small, tmp_path / "knowledge", slice(0, 60))
    run = train(small, TrainSettings.model_validate(values), out=tmp_path / "run", knowledge=knowledge)
    before = gather([run])
    label(small, tmp_path / "knowledge", slice(60, 120))
    after = gather([run])
    assert "item-kNN + text" in before.references
    assert list(after.references) == list(before.references)
    assert after.missing == (tmp_path / "knowledge",)  # what it learned from is part of what is there


def test_knowledge_that_is_another_is_missing(small: Dataset, tmp_path: Path) -> None:
    values = {"protocol": "paper", "method": {"kind": "dllm2rec"}, "student": {"dim": 8}, "training": {"epochs": 1}}
    knowledge = label(small, tmp_path / "knowledge", slice(0, 60))
    run = train(small, TrainSettings.model_validate(values), out=tmp_path / "run", knowledge=knowledge)
    gather([run])  # evaluates it, which needs what taught it
    knowledge.path.rename(tmp_path / "old")
    label(small, tmp_path / "knowledge", slice(0, 60), seed=1)
    found = gather([run])
    assert "item-kNN + text" not in found.references
    assert found.missing == (tmp_path / "knowledge",)


def test_teachers_of_one_name_are_told_apart_by_their_folders(small: Dataset, tmp_path: Path) -> None:
    values = {"protocol": "paper", "method": {"kind": "dllm2rec"}, "student": {"dim": 8}, "training": {"epochs": 1}}
    runs = []
    for seed, name in enumerate(("one", "two")):
        label(small, tmp_path / name, slice(0, 60), seed=seed)
        knowledge = label(small, tmp_path / name, slice(0, 10), split="test", seed=seed)
        runs.append(
            train(small, TrainSettings.model_validate(values), out=tmp_path / f"run{seed}", knowledge=knowledge)
        )
    assert [taught.name for taught in gather(runs).teachers] == ["test [one]", "test [two]"]
    assert [taught.name for taught in gather(runs[:1]).teachers] == ["test"]


def test_what_chooses_is_validation_masked_as_the_table_is(small: Dataset, tmp_path: Path) -> None:
    """Of references and of runs, on a test table, with and without the items of histories."""
    values = {"protocol": "paper", "student": {"dim": 8}, "training": {"epochs": 1}}
    run = train(small, TrainSettings.model_validate(values), out=tmp_path / "run")
    for mask_history in (False, True):
        test, validation = (gather([run], split=split, mask_history=mask_history) for split in ("test", "validation"))
        for name, one in test.references.items():
            own = ndcg(validation.references[name].ranks.rank, 20).mean()
            assert one.validation == pytest.approx(own), name
        assert test.groups[0].validation == pytest.approx(ndcg(validation.groups[0].ranks[0].rank, 20).mean())
        assert any(one.validation != ndcg(one.ranks.rank, 20).mean() for one in test.references.values())

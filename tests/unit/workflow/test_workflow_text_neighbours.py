"""From training to a grown catalogue: text neighbours count where validation says so, and stay what they were."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, PaperSplit, extend, read_log, write_dataset
from dllm2rec.evaluation import references
from dllm2rec.evaluation.demand import DemandWeights
from dllm2rec.evaluation.metrics import ndcg, summary
from dllm2rec.evaluation.ranks import ScoreFunction, rank_targets
from dllm2rec.evaluation.references import reference_ranks
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter
from dllm2rec.settings.config import TrainSettings
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.workflow.building import knowledge_of, load_student, settle
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.training import train
from dllm2rec.workflow.updating import Material, grown

ITEMS, MORE, TOPICS, SIZE = 60, 70, 12, 8


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Text of items and of ten that come later: an item is of topic ``item % TOPICS``, the later ones stand aside."""
    draw = numpy_generator(0, "text")
    topics, noise = draw.normal(size=(TOPICS, SIZE)), draw.normal(size=(MORE, SIZE))
    return (topics[np.arange(MORE) % TOPICS] + 0.1 * noise + np.where(np.arange(MORE) < ITEMS, 0, 3)[:, None]).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A log in which everyone keeps to one topic."""
    folder, draw = tmp_path_factory.mktemp("topics"), numpy_generator(0, "log")
    rows = [
        {"user_id": user, "item_id": int(user % TOPICS + TOPICS * item), "timestamp": 1000 * step + user}
        for user in range(60)
        for step, item in enumerate(draw.integers(ITEMS // TOPICS, size=8))
    ]
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": range(ITEMS), "title": [f"thing {n}" for n in range(ITEMS)]}).write_csv(
        folder / "items.csv"
    )
    log = read_log(folder / "log.csv", folder / "items.csv")
    return write_dataset(log, PaperSplit(history=4), folder / "dataset", name="topics")


def read(dataset: Dataset, vectors: NDArray[np.float32], out: Path) -> Knowledge:
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="test",
        depth=0,
        vector_size=SIZE,
    )
    KnowledgeWriter(out, manifest).write_item_vectors(vectors[: dataset.num_items])
    return Knowledge.load(out)


@pytest.fixture(scope="module")
def run(dataset: Dataset, vectors: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    values = {
        "protocol": "strong",
        "method": {"kind": "vectors"},
        "student": {"dim": 8, "text_neighbours": 5, "transitions": False},
        "training": {"epochs": 1},
    }
    knowledge = read(dataset, vectors, folder / "knowledge")
    return train(dataset, TrainSettings.model_validate(values), out=folder / "run", knowledge=knowledge)


def test_training_chooses_a_weight_and_the_run_is_rebuilt_with_it(run: Run, dataset: Dataset) -> None:
    fit = run.finished().fit
    assert fit.demand is not None
    assert fit.demand.text > 0
    student = load_student(run, dataset)
    assert student.width == 8 + 5
    assert summary(rank_targets(student, dataset.examples("validation")).rank, ks=(20,)) == fit.validation
    student.table.near = None
    bare = ndcg(rank_targets(student, dataset.examples("validation")).rank, 20).mean()
    assert fit.validation["NDCG@20"] > bare + 0.02


def test_a_grown_catalogue_leaves_the_scores_of_the_old_items(
    run: Run, dataset: Dataset, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    later = {"user_id": range(10), "item_id": range(ITEMS, MORE), "timestamp": range(10**6, 10**6 + 10)}
    pl.DataFrame(later).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": range(ITEMS, MORE), "title": [f"new {n}" for n in range(10)]}).write_csv(
        tmp_path / "items.csv"
    )
    longer = extend(dataset, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "longer")
    assert longer.num_items == MORE
    before = Material(dataset=dataset, knowledge=knowledge_of(run))
    student = grown(run, before, Material(dataset=longer, knowledge=read(longer, vectors, tmp_path / "knowledge")))
    histories = dataset.examples("test").history[:20].astype(np.int64)
    with torch.no_grad():
        expected = load_student(run, dataset)(torch.from_numpy(histories))
        found = student(torch.from_numpy(np.where(histories == ITEMS, MORE, histories)))
    torch.testing.assert_close(found[:, :ITEMS], expected, rtol=1e-3, atol=1e-3)
    demand = run.finished().fit.demand
    assert demand is not None
    settle(student, run, dataset, demand=demand.model_copy(update={"new": 1.5}))  # what came later is new
    assert student.table.shift is not None
    assert student.table.shift[ITEMS:].tolist() == [1.5] * (MORE - ITEMS)


def test_a_reference_that_follows_demand_reads_more_of_its_text(
    dataset: Dataset, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(score: ScoreFunction, *given: object, text: ScoreFunction | None) -> DemandWeights:
        assert text is not None
        return DemandWeights(trend=0.0, new=0.0, again=0.0, text=0.7, ndcg=0.0, before=0.0)

    monkeypatch.setattr(references, "choose_demand", chosen)
    test, given = dataset.examples("test"), {"item_vectors": vectors[:ITEMS], "train_on": "before-cut"}
    found = reference_ranks(BlendSettings(text_weight=0.2), dataset, test, follows="demand", **given)
    expected = reference_ranks(BlendSettings(text_weight=0.9), dataset, test, **given)
    np.testing.assert_array_equal(found.rank, expected.rank)


def test_items_that_training_never_saw_are_their_text_alone(
    dataset: Dataset, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    values = {
        "protocol": "paper",
        "method": {"kind": "vectors"},
        "student": {"dim": 8, "output": "tied", "unseen_offset": "zero"},
        "training": {"epochs": 2},
    }
    users = pl.read_parquet(dataset.path / "users.parquet")["user_id"]
    log = pl.read_parquet(dataset.path / "interactions.parquet")
    log.select(user_id=users.gather(log["user"]), item_id="item", timestamp="time").write_csv(tmp_path / "log.csv")
    items = pl.DataFrame({"item_id": range(MORE), "title": [f"thing {n}" for n in range(MORE)]})
    items.write_csv(tmp_path / "items.csv")
    wider = read_log(tmp_path / "log.csv", tmp_path / "items.csv")
    larger = write_dataset(wider, PaperSplit(history=4), tmp_path / "larger", name="larger")
    knowledge = read(larger, vectors, tmp_path / "knowledge")
    done = train(larger, TrainSettings.model_validate(values), out=tmp_path / "run", knowledge=knowledge)
    unseen = larger.train_counts("positions") == 0
    assert unseen.sum() >= MORE - ITEMS
    offset = load_student(done, larger).table.offset
    assert offset is not None
    assert not offset[torch.from_numpy(unseen)].any()  # sampled negatives pushed them in training
    assert offset[torch.from_numpy(~unseen)].any()

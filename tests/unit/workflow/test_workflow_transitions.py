"""What followed an item in training, counted beside what a student learned of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from dllm2rec.bundling.adding import add_items
from dllm2rec.bundling.exporting import export
from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, PaperSplit, extend, read_log, write_dataset
from dllm2rec.evaluation.metrics import ndcg, summary
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.serving.bundle import Bundle
from dllm2rec.serving.recommender import Recommender
from dllm2rec.settings.config import TrainSettings
from dllm2rec.teachers.references import ItemKNN
from dllm2rec.workflow.building import load_student
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.training import train
from dllm2rec.workflow.updating import Material, grown

ITEMS = 40


def settings(**student: object) -> TrainSettings:
    values = {"protocol": "strong", "student": {"dim": 8, **student}, "training": {"epochs": 1}}
    return TrainSettings.model_validate({**values, "method": {"kind": "none"}})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A log in which each item has a follower that nothing but counting can learn in an epoch."""
    folder, draw = tmp_path_factory.mktemp("walks"), numpy_generator(0, "log")
    follower, rows = draw.permutation(ITEMS), []
    for user in range(80):
        item = int(draw.integers(ITEMS))
        for step in range(8):
            rows.append({"user_id": user, "item_id": item, "timestamp": 1000 * step + user})
            item = int(follower[item]) if draw.random() < 0.8 else int(draw.integers(ITEMS))
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": range(ITEMS), "title": [f"thing {n}" for n in range(ITEMS)]}).write_csv(
        folder / "items.csv"
    )
    log = read_log(folder / "log.csv", folder / "items.csv")
    return write_dataset(log, PaperSplit(history=4), folder / "dataset", name="walks")


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(dataset, settings(), out=tmp_path_factory.mktemp("run") / "run")


def test_training_chooses_a_weight_and_the_run_is_rebuilt_with_it(run: Run, dataset: Dataset) -> None:
    fit, validation = run.finished().fit, dataset.examples("validation")
    assert fit.demand is not None
    assert fit.demand.transitions > 0
    student = load_student(run, dataset)
    assert summary(rank_targets(student, validation).rank, ks=(20,)) == fit.validation
    student.transitions = None
    bare = ndcg(rank_targets(student, validation).rank, 20).mean()
    assert fit.validation["NDCG@20"] > bare + 0.1


def test_who_asks_for_none_has_none(dataset: Dataset, tmp_path: Path) -> None:
    run = train(dataset, settings(transitions=False), out=tmp_path / "run")
    demand = run.finished().fit.demand
    assert demand is not None
    assert demand.transitions == 0
    assert load_student(run, dataset).transitions is None
    paper = TrainSettings.model_validate({"protocol": "paper", "method": {"kind": "none"}})
    assert not paper.student.transitions


def test_they_are_what_followed_within_five_steps(run: Run, dataset: Dataset) -> None:
    student, demand = load_student(run, dataset), run.finished().fit.demand
    assert demand is not None
    assert isinstance(student.transitions, ItemKNN)
    assert student.transitions.similarity.data.min() > 0  # what stood before an item is not stored as a zero
    expected = np.zeros((ITEMS, ITEMS))
    sequences = dataset.training_sequences("before-cut")
    counts = np.bincount(sequences.items, minlength=ITEMS)
    for start, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True):
        items = sequences.items[start:end].tolist()
        for place, item in enumerate(items):
            for step, later in enumerate(items[place + 1 : place + 6], start=1):
                expected[item, later] += 1 / step / np.sqrt((counts[item] + 1) * (counts[later] + 1))
    found = student.transitions.scores(np.array([[ITEMS, ITEMS, 3, 5]]))[0]
    np.testing.assert_allclose(found, demand.transitions * (expected[5] + 0.6 * expected[3]), rtol=1e-5)
    with torch.no_grad():
        history = torch.tensor([[ITEMS, ITEMS, 3, 5]])
        whole = student(history)
        student.transitions = None
        np.testing.assert_allclose((whole - student(history))[0].numpy(), found, atol=1e-5)


def test_they_go_into_the_bundle_and_likeness_stays_that_of_vectors(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    done = export(run, out=tmp_path / "bundle")
    assert done.check.different == 0
    recommender = Recommender.load(tmp_path / "bundle")
    bundle = recommender.bundle
    assert bundle.neighbours is not None
    without = Recommender(replace(bundle, neighbours=None, manifest=replace(bundle.manifest, neighbours_decay=None)))
    assert recommender.recommend([[3, 5]])[0].items != without.recommend([[3, 5]])[0].items
    assert recommender.similar(3).items == without.similar(3).items
    half = export(run, out=tmp_path / "half", precision="float16", max_loss=1.0).path
    assert (half / "neighbours.safetensors").stat().st_size < (
        tmp_path / "bundle" / "neighbours.safetensors"
    ).stat().st_size
    assert Bundle.load(half).neighbours is not None


def test_who_counts_and_reads_no_text_is_told_so_when_items_are_to_be_added(run: Run, tmp_path: Path) -> None:
    bundle = Bundle.load(export(run, out=tmp_path / "bundle").path)
    (tmp_path / "new.csv").write_text("item_id,title\n900,thing\n")
    with pytest.raises(UserError, match="has no output tied to text"):
        add_items(bundle, items=tmp_path / "new.csv", out=tmp_path / "more")


def test_a_grown_catalogue_leaves_the_scores_of_the_old_items(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    more = ITEMS + 10
    later = {"user_id": range(10), "item_id": range(ITEMS, more), "timestamp": range(10**6, 10**6 + 10)}
    pl.DataFrame(later).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": range(ITEMS, more), "title": [f"new {n}" for n in range(10)]}).write_csv(
        tmp_path / "items.csv"
    )
    longer = extend(dataset, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "longer")
    student = grown(run, Material(dataset=dataset, knowledge=None), Material(dataset=longer, knowledge=None))
    histories = dataset.examples("test").history[:20].astype(np.int64)
    with torch.no_grad():
        expected = load_student(run, dataset)(torch.from_numpy(histories))
        found = student(torch.from_numpy(np.where(histories == ITEMS, more, histories)))
    torch.testing.assert_close(found[:, :ITEMS], expected, rtol=1e-4, atol=1e-4)


def test_an_approximate_index_is_asked_for_no_more_than_what_may_fall_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.serving.approximate import ApproximateIndex

    done = export(run, out=tmp_path / "bundle", index=True)
    asked: list[int] = []
    search = ApproximateIndex.search

    def counted(self: ApproximateIndex, hidden: np.ndarray, count: int) -> np.ndarray:
        asked.append(count)
        return search(self, hidden, count)

    monkeypatch.setattr(ApproximateIndex, "search", counted)
    exact, quick = (Recommender.load(done.path, approximate=on).recommend([[3, 5]], k=5)[0].items for on in (0, 1))
    assert quick == exact
    assert asked == [5 + 2]  # two of the history may be lowered, the many that are raised are scored anyway

"""A bundle of counting recommends what the reference of tables does, and takes new items by their titles."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from serving_helpers import ITEMS

from dllm2rec.bundling import baseline
from dllm2rec.bundling.adding import add_items
from dllm2rec.bundling.baseline import export_baseline
from dllm2rec.bundling.batch import history_of, recommend_all
from dllm2rec.bundling.bundles import write_manifest
from dllm2rec.comparison.evidence import metric_values
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_file
from dllm2rec.data import Columns, Dataset
from dllm2rec.evaluation.demand import DemandWeights
from dllm2rec.evaluation.references import Following, follow_demand, reference_ranks
from dllm2rec.knowledge import Knowledge, KnowledgeWriter
from dllm2rec.serving.bundle import FILES, NEIGHBOURS, TEXT, Bundle
from dllm2rec.serving.recommender import Recommender
from dllm2rec.teachers.references import BlendSettings, ItemKNNSettings, Reference

WEIGHTS = DemandWeights(trend=0.1, new=0.2, again=-0.3, text=0.4, ndcg=0.1, before=0.0)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Following]:
    """Whatever validation says, all weights count; the reference as it is exported."""
    found = []

    def follow(reference: Reference, dataset: Dataset, train_on: str) -> Following:
        monkeypatch.setattr("dllm2rec.evaluation.references.choose_demand", lambda *_, **__: WEIGHTS)
        found.append(follow_demand(reference, dataset, train_on))  # type: ignore[arg-type]
        return found[0]

    monkeypatch.setattr(baseline, "follow_demand", follow)
    return found


def histories(dataset: Dataset) -> tuple[torch.Tensor, list[list[int]]]:
    given = dataset.examples("test").history
    return torch.from_numpy(given.astype(np.int64)), [[1000 + int(i) for i in row if i != ITEMS] for row in given]


@pytest.mark.parametrize("text", [True, False], ids=["text", "ids"])
def test_it_scores_as_the_reference_does(
    text: bool, dataset: Dataset, knowledge: Knowledge, chosen: list[Following], tmp_path: Path
) -> None:
    done = export_baseline(dataset, out=tmp_path / "bundle", knowledge=knowledge if text else None)
    assert (done.check.examples, done.check.different) == (len(dataset.examples("test")), 0)
    tensor, ids = histories(dataset)
    expected = chosen[0].score(tensor).numpy()
    assert len(np.unique(expected.round(6))) > ITEMS  # each part of the scores says something
    recommender = Recommender.load(done.path)
    np.testing.assert_allclose(recommender.scores(ids), expected, rtol=1e-4, atol=1e-6)
    few = [1002, 1003, 1005, 1007, 1011, 1013]
    for options, allowed in (({}, set(range(ITEMS))), ({"candidates": few}, {item - 1000 for item in few})):
        for row, one in enumerate(recommender.recommend(ids, k=4, exclude_seen=True, **options)):
            left = np.array(sorted(allowed - {item - 1000 for item in ids[row]}))
            best = np.sort(expected[row, left])[::-1][:4]
            np.testing.assert_allclose(one.scores, best, rtol=1e-4, atol=1e-6)
            assert len(one.items) == len(best)


def test_it_is_the_row_of_a_table(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    for known, settings, name in (
        (None, ItemKNNSettings(), "item-kNN, demand"),
        (knowledge, BlendSettings(), "item-kNN + text, demand"),
    ):
        done = export_baseline(dataset, out=tmp_path / name, knowledge=known)
        ranks = reference_ranks(
            settings,
            dataset,
            dataset.examples("test"),
            train_on="before-cut",
            item_vectors=None if known is None else known.item_vectors,
            follows="demand",
        )
        assert done.name == Bundle.load(done.path).manifest.student == name
        assert {metric: done.metrics[metric] for metric in ("HR@20", "NDCG@20")} == pytest.approx(
            {metric: values.mean() for metric, values in metric_values(ranks).items()}
        )


@pytest.mark.usefixtures("chosen")
def test_smaller_precisions(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    options = {"knowledge": knowledge, "max_loss": 1.0}
    whole = export_baseline(dataset, out=tmp_path / "whole", **options)  # type: ignore[arg-type]
    small = export_baseline(dataset, out=tmp_path / "small", precision="int8", **options)  # type: ignore[arg-type]
    first, second = (Bundle.load(one.path).neighbours for one in (whole, small))
    assert first is not None
    assert second is not None
    assert second.weights.nbytes == first.weights.nbytes / 2
    _, ids = histories(dataset)
    scores = [Recommender.load(one.path).scores(ids) for one in (whole, small)]
    np.testing.assert_allclose(scores[1], scores[0], atol=0.02)


@pytest.mark.usefixtures("chosen")
def test_a_new_item_is_as_one_that_training_never_saw(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    done = export_baseline(dataset, out=tmp_path / "bundle", knowledge=knowledge)
    vectors = knowledge.item_vectors
    assert vectors is not None
    assert load_file(done.path / TEXT)["directions"].shape == ()  # one number for all of them
    (tmp_path / "new.csv").write_text("item_id,title\n5003,a\n")
    np.save(tmp_path / "new.npy", vectors[[3]])
    files = {"items": tmp_path / "new.csv", "vectors": tmp_path / "new.npy"}
    add_items(Bundle.load(done.path), out=tmp_path / "more", **files)
    old, more = Recommender.load(done.path), Recommender.load(tmp_path / "more")
    given = [[1001, 1004], [1007]]
    scores = more.scores(given)
    np.testing.assert_array_equal(scores[:, :ITEMS], old.scores(given))
    near = more.bundle.output[[1, 4, 7]] @ more.bundle.output[3]
    expected = np.array([0.8 * near[0] + near[1], near[2]]) + WEIGHTS.new
    np.testing.assert_allclose(scores[:, ITEMS], expected, rtol=1e-4)
    read = more.scores([[5003, 1001], [1001]])  # its title is read, and it has stood near nothing yet
    np.testing.assert_allclose(
        (read[0] - read[1])[8:ITEMS], 0.8 * (more.bundle.output[8:ITEMS] @ more.bundle.output[3]), rtol=1e-3, atol=1e-5
    )


@pytest.mark.usefixtures("chosen")
def test_a_bundle_remembers_how_the_columns_of_its_log_are_named(
    dataset: Dataset, knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Columns(user="who", item="what", time="when", title="called", time_unit="ms")
    monkeypatch.setattr(dataset, "manifest", dataset.manifest.model_copy(update={"columns": known}))
    export_baseline(dataset, out=tmp_path / "bundle", knowledge=knowledge)
    bundle, (log, items) = Bundle.load(tmp_path / "bundle"), (tmp_path / name for name in ("log.csv", "items.csv"))
    log.write_text("visitor,what,when\na,1001,1500000002000\na,1004,1500000001000\n")
    items.write_text("item_id,called\n5003,a\n")
    with pytest.raises(UserError, match=r"no column 'who'.*--user-column"):
        recommend_all(Recommender(bundle), log, out=tmp_path / "all.parquet")
    assert history_of("a", log, Recommender(bundle), Columns(user="visitor")) == [1004, 1001]
    assert knowledge.item_vectors is not None
    np.save(tmp_path / "new.npy", knowledge.item_vectors[[3]])
    assert add_items(bundle, items, out=tmp_path / "more", vectors=tmp_path / "new.npy").new == 1
    assert Bundle.load(tmp_path / "more").manifest.columns == bundle.manifest.columns


def test_what_is_similar_is_what_stood_near_and_reads_alike(
    dataset: Dataset, knowledge: Knowledge, chosen: list[Following], tmp_path: Path
) -> None:
    done = export_baseline(dataset, out=tmp_path / "bundle", knowledge=knowledge)
    found = Recommender.load(done.path).similar(1004, k=5)
    history = np.full((1, 4), ITEMS)
    history[0, -1] = 4
    scores = chosen[0].reference.scores(history)[0]
    scores[4] = -np.inf
    assert found.items == [1000 + int(item) for item in np.argsort(-scores, kind="stable")[:5]]


def test_an_item_that_stood_near_nothing_has_nothing_similar(dataset: Dataset, tmp_path: Path) -> None:
    done = export_baseline(dataset, out=tmp_path / "bundle")
    neighbours = Bundle.load(done.path).neighbours
    assert neighbours is not None
    counts = np.diff(neighbours.offsets)
    few = int(np.argmin(counts))
    found = Recommender.load(done.path).similar(1000 + few, k=ITEMS)
    assert len(found.items) == len(set(neighbours.items[slice(*neighbours.offsets[[few, few + 1]])].tolist()) - {few})
    assert min(found.scores, default=1.0) > 0


@pytest.mark.usefixtures("chosen")
def test_it_needs_nothing_but_itself(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    bundle = export_baseline(dataset, out=tmp_path / "bundle", knowledge=knowledge).path
    assert {file.name for file in bundle.iterdir()} == {*FILES, NEIGHBOURS, TEXT, "bundle.json"}
    program = (
        "import sys; from dllm2rec.serving.recommender import Recommender\n"
        f"print(Recommender.load({str(bundle)!r}).recommend([[1001, 1002]], k=3)[0].items)\n"
        "print({'torch', 'scipy', 'polars', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "set()"


def test_what_is_refused(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    manifest = knowledge.manifest.model_copy(update={"vector_size": None, "depth": 3})
    KnowledgeWriter(tmp_path / "mute", manifest)
    with pytest.raises(UserError, match="mute: has no item vectors, which the baseline reads titles by"):
        export_baseline(dataset, out=tmp_path / "bundle", knowledge=Knowledge.load(tmp_path / "mute"))
    other = manifest.model_copy(update={"dataset_hash": "other"})
    KnowledgeWriter(tmp_path / "other", other)
    with pytest.raises(UserError, match="other"):
        export_baseline(dataset, out=tmp_path / "bundle", knowledge=Knowledge.load(tmp_path / "other"))
    done = export_baseline(dataset, out=tmp_path / "bundle")
    with pytest.raises(UserError, match="exists already"):
        export_baseline(dataset, out=tmp_path / "bundle")
    (tmp_path / "new.csv").write_text("item_id,title\n5003,a\n")
    with pytest.raises(UserError, match=r"reads no titles.*export it with --knowledge"):
        add_items(Bundle.load(done.path), tmp_path / "new.csv", out=tmp_path / "more")
    bundle = Bundle.load(done.path)
    (done.path / NEIGHBOURS).write_bytes(b"nothing")
    write_manifest(done.path, bundle.manifest)
    assert hash_file(done.path / NEIGHBOURS) in (done.path / "bundle.json").read_text()
    with pytest.raises(UserError, match=r"neighbours\.safetensors: damaged"):
        Bundle.load(done.path)

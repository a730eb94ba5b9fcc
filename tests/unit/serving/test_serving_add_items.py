"""New items from their text: the same as items of the catalogue, and what is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from serving_helpers import ITEMS, trained

from dllm2rec.bundling.adding import add_items
from dllm2rec.bundling.exporting import export
from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, LeaveOneOutSplit, Log, write_dataset
from dllm2rec.data.demand import measure_demand
from dllm2rec.evaluation.demand import DemandWeights
from dllm2rec.knowledge import Knowledge, KnowledgeWriter
from dllm2rec.serving.bundle import CARD, TABLE, Bundle
from dllm2rec.serving.packing import Precision
from dllm2rec.serving.recommender import Recommender
from dllm2rec.workflow.building import load_student


@pytest.fixture(scope="module", params=[None, 5], ids=["linear", "hidden"])
def bundle(
    dataset: Dataset, knowledge: Knowledge, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """Of a student whose items are their text alone, so that every item is as a new one."""
    folder = tmp_path_factory.mktemp("add")
    options = {"output": "tied", "offset": False, "text_weight": 0.7, "projector_hidden": request.param}
    run = trained(dataset, folder / "run", knowledge, **options)
    export(run, out=folder / "bundle", dataset=dataset, knowledge=knowledge)
    return Bundle.load(folder / "bundle")


def write(folder: Path, rows: str, vectors: np.ndarray | None = None) -> dict[str, Path]:
    (folder / "new.csv").write_text("item_id,title\n" + rows)
    if vectors is not None:
        np.save(folder / "new.npy", vectors)
    return {"items": folder / "new.csv", "out": folder / "more", "vectors": folder / "new.npy"}


def test_a_new_item_scores_as_if_it_had_been_in_the_catalogue(
    bundle: Bundle, knowledge: Knowledge, tmp_path: Path
) -> None:
    assert knowledge.item_vectors is not None
    twins = [3, 17]
    done = add_items(bundle, **write(tmp_path, "5003,a\n5017,b\n", knowledge.item_vectors[twins]))
    assert (done.new, done.items) == (2, ITEMS + 2)
    more = Recommender.load(tmp_path / "more")
    assert more.bundle.ids[-2:] == [5003, 5017]
    assert more.bundle.titles[-2:] == ["a", "b"]
    histories = [[1001, 1004], [1003], [1029, 1002, 1017]]
    scores = more.scores(histories)
    np.testing.assert_allclose(scores[:, ITEMS:], scores[:, twins], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scores[:, :ITEMS], Recommender(bundle).scores(histories))
    read = more.scores([[1001, 5003], [1001, 1003]])  # a new item is also read
    np.testing.assert_allclose(read[0], read[1], rtol=1e-3, atol=1e-5)


def test_the_old_vectors_are_the_same_bits(bundle: Bundle, knowledge: Knowledge, tmp_path: Path) -> None:
    assert knowledge.item_vectors is not None
    add_items(bundle, **write(tmp_path, "5003,a\n", knowledge.item_vectors[:1]))
    old, new = load_file(bundle.path / TABLE), load_file(tmp_path / "more" / TABLE)
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        np.testing.assert_array_equal(new[name][:ITEMS], tensor)
    assert new["popularity"][-1] == 0
    again = add_items(Bundle.load(tmp_path / "more"), **{**write(tmp_path, "5004,b\n"), "out": tmp_path / "twice"})
    assert again.items == ITEMS + 2
    assert "2 of the items were added from their titles" in (tmp_path / "twice" / CARD).read_text()
    assert "were added" not in (bundle.path / CARD).read_text()


def test_packed_vectors_and_an_index_take_new_items(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    assert knowledge.item_vectors is not None
    run = trained(dataset, tmp_path / "run", knowledge, output="tied", offset=False)
    options = {"dataset": dataset, "knowledge": knowledge, "max_loss": 1.0}
    export(run, out=tmp_path / "bundle", precision="int8", index=True, **options)
    add_items(Bundle.load(tmp_path / "bundle"), **write(tmp_path, "5003,a\n", knowledge.item_vectors[[3]]))
    more = Bundle.load(tmp_path / "more")
    np.testing.assert_allclose(more.output[ITEMS], more.output[3], rtol=1e-5)
    np.testing.assert_array_equal(more.output[:ITEMS], Bundle.load(tmp_path / "bundle").output)
    found = Recommender.load(tmp_path / "more", approximate=True).recommend([[1001, 1004]], k=ITEMS + 1)[0].items
    assert abs(found.index(5003) - found.index(1003)) == 1


def test_what_is_there_already_is_passed_over(bundle: Bundle, knowledge: Knowledge, tmp_path: Path) -> None:
    assert knowledge.item_vectors is not None
    rows = "1003,another title\n5003,a\n1004,\n"
    done = add_items(bundle, **write(tmp_path, rows, knowledge.item_vectors[[8, 3, 8]]))
    assert (done.new, done.known, done.items) == (1, 2, ITEMS + 1)
    more = Bundle.load(tmp_path / "more")
    assert more.titles == [*bundle.titles, "a"]
    np.testing.assert_allclose(more.output[-1], bundle.output[3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1003,a\n", "no item of it is new"),
        ("5000,a\n5000,b\n", "duplicate"),
        ("5000,\n", "row 1: item_id 5000 has no title"),
        ("x1,a\n", "row 1: item_id 'x1' is no number"),
        ("--5,a\n", "no number"),
        ("5000,a\n05000,b\n", "row 2: item_id 5000 is a duplicate"),
        ("", "no row"),
    ],
)
def test_wrong_items_leave_nothing(rows: str, words: str, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        add_items(bundle, **write(tmp_path, rows, np.zeros((1, 6), np.float32)))
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.zeros((2, 6), np.float32), r"shape \[2, 6\]; it must be a vector of size 6 for each of 1 items"),
        (np.zeros((1, 7), np.float32), r"shape \[1, 7\]; it must be a vector of size 6"),
        (np.full((1, 6), np.nan, np.float32), "row 1 is not finite"),
        (np.full((1, 6), 1e300), "row 1 is not finite in single precision"),
        (np.full((1, 6), "one"), "not a .npy file of numbers"),
    ],
)
def test_wrong_vectors(vectors: np.ndarray, words: str, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        add_items(bundle, **write(tmp_path, "5000,a\n", vectors))


def test_an_empty_file_is_no_vectors(bundle: Bundle, tmp_path: Path) -> None:
    arguments = write(tmp_path, "5000,a\n", np.zeros((1, 6), np.float32))
    (tmp_path / "new.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"not a \.npy file of numbers"):
        add_items(bundle, **arguments)


def test_several_arrays_are_no_vectors(bundle: Bundle, tmp_path: Path) -> None:
    arguments = write(tmp_path, "5000,a\n")
    np.savez(tmp_path / "several.npz", a=np.zeros((1, 6), np.float32))
    with pytest.raises(UserError, match="an archive of arrays"):
        add_items(bundle, **{**arguments, "vectors": tmp_path / "several.npz"})


def test_another_encoder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    arguments = {**write(tmp_path, "5000,a\n"), "vectors": None}
    with pytest.raises(UserError, match="minilm: gives titles of the catalogue other vectors"):
        add_items(bundle, **arguments)


def test_a_student_that_reads_no_text_says_so(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path / "run")
    export(run, out=tmp_path / "bundle", dataset=dataset)
    with pytest.raises(UserError, match="no output tied to text"):
        add_items(Bundle.load(tmp_path / "bundle"), **write(tmp_path, "5000,a\n"))
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["text"] is None


def test_a_new_item_gets_the_demand_of_new_items(dataset: Dataset, knowledge: Knowledge, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path / "run", knowledge, output="tied")
    result = run.finished()
    weights = DemandWeights(trend=0.5, new=1.5, again=0.0, ndcg=0.1, before=0.0)
    run.write_result(result.model_copy(update={"fit": result.fit.model_copy(update={"demand": weights})}))
    export(run, out=tmp_path / "bundle", dataset=dataset, knowledge=knowledge)
    bundle = Bundle.load(tmp_path / "bundle")
    np.testing.assert_allclose(bundle.bias, weights.shift(measure_demand(dataset)), rtol=1e-6)
    assert knowledge.item_vectors is not None
    add_items(bundle, **write(tmp_path, "5003,a\n", knowledge.item_vectors[:1]))
    more = Bundle.load(tmp_path / "more")
    np.testing.assert_array_equal(more.bias, [*bundle.bias, np.float32(1.5)])


def test_how_often_new_items_are_listed_is_told_and_can_be_changed(
    bundle: Bundle, knowledge: Knowledge, tmp_path: Path
) -> None:
    assert knowledge.item_vectors is not None
    files = write(tmp_path, "5003,a\n", knowledge.item_vectors[[3]])
    shares = {}
    for bias in (None, 100.0, -100.0):
        done = add_items(bundle, **{**files, "out": tmp_path / str(bias)}, bias=bias)
        shares[bias] = done.listed
        assert done.bias == (bias or 0)
    with pytest.raises(UserError, match="--bias nan: must be a finite number"):
        add_items(bundle, **{**files, "out": tmp_path / "nan"}, bias=float("nan"))
    assert not (tmp_path / "nan").exists()
    assert shares[100.0] == pytest.approx(0.1)  # one of ten
    assert shares[-100.0] == 0
    assert 0 <= (shares[None] or 0) <= 0.1


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("text_neighbours", [None, 4])
def test_a_new_item_is_as_an_unseen_one_of_the_catalogue(
    precision: Precision, text_neighbours: int | None, knowledge: Knowledge, tmp_path: Path
) -> None:
    draw, unseen = np.random.default_rng(0), 29  # chosen as the very last thing only, which training does not see
    rows = [(f"u{user}", int(draw.integers(29)), 100 * step) for user in range(40) for step in range(5)]
    rows += [("u0", unseen, 1000), ("u1", unseen, 1000)]
    interactions = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.Int32, "time": pl.Int64}, orient="row")
    items = pl.DataFrame({"index": range(ITEMS), "item_id": range(1000, 1000 + ITEMS), "title": map(str, range(ITEMS))})
    log = Log(interactions, items.cast({"index": pl.Int32}))
    dataset = write_dataset(log, LeaveOneOutSplit(history=4), tmp_path / "dataset", name="unseen")
    assert np.flatnonzero(dataset.train_counts() == 0).tolist() == [unseen]
    manifest = knowledge.manifest.model_copy(update={"dataset_hash": dataset.content_hash})
    KnowledgeWriter(tmp_path / "k", manifest).write_item_vectors(knowledge.item_vectors)
    own = Knowledge.load(tmp_path / "k")
    options = {"output": "tied", "unseen_offset": "neighbours", "kind": "transformer", "transitions": True}
    run = trained(dataset, tmp_path / "run", own, text_neighbours=text_neighbours, **options)
    result = run.finished()
    weights = DemandWeights(trend=0.5, new=1.5, again=0.0, text=2.0, transitions=3.0, ndcg=0.1, before=0.0)
    run.write_result(result.model_copy(update={"fit": result.fit.model_copy(update={"demand": weights})}))
    export(run, out=tmp_path / "bundle", dataset=dataset, knowledge=own, precision=precision, max_loss=1.0)
    assert own.item_vectors is not None
    add_items(Bundle.load(tmp_path / "bundle"), **write(tmp_path, "5003,a\n", own.item_vectors[[unseen]]))
    more = Recommender.load(tmp_path / "more")
    assert more.bundle.output.shape[1] == 8 + (text_neighbours or 0)
    assert more.bundle.neighbours is not None
    histories = [[1001, 1004], [1003]]
    scores = more.scores(histories)
    if precision == "float32":
        expected = load_student(run, dataset)(torch.tensor([[ITEMS, ITEMS, 1, 4], [ITEMS, ITEMS, ITEMS, 3]]))
        np.testing.assert_allclose(scores[:, :ITEMS], expected.detach(), rtol=1e-3, atol=1e-4)
    read = more.scores([[1001, 5003], [1001, 1000 + unseen]])  # a new item is also read
    tolerance = 2e-3 if precision == "float32" else 0.1
    np.testing.assert_allclose(read[0], read[1], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(scores[:, -1], scores[:, unseen], rtol=tolerance, atol=tolerance)
    alone = trained(dataset, tmp_path / "alone", own, output="tied", unseen_offset="zero", kind="transformer")
    borrowing, plain = (load_student(one, dataset).table.fold()[unseen, :8] for one in (run, alone))
    assert not np.allclose(borrowing, plain, atol=1e-3)

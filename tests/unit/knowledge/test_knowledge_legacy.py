from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.knowledge.legacy import export_legacy, import_legacy

MakeDataset = Callable[..., Dataset]

VECTORS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Dataset:
    return make_dataset()


@pytest.fixture
def source(tmp_path: Path, dataset: Dataset) -> Path:
    """The three files as the original code would find them, item vectors as .npy."""
    path = tmp_path / "tocf"
    path.mkdir()
    size = len(dataset.examples("train"))
    generator = np.random.default_rng(1)
    ranking = np.argsort(generator.random((size, 12)), axis=1)[:, :5]
    np.savetxt(path / "myrank_train.txt", ranking)  # floats in scientific notation, as np.savetxt writes by default
    np.savetxt(path / "confidence_train.txt", np.sort(generator.random((size, 5)), axis=1), fmt="%.6f")
    np.save(path / "all_embeddings.npy", VECTORS)
    return path


def test_rows_belong_to_training_examples_in_order(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    knowledge = import_legacy(dataset, source, out=tmp_path / "k")
    train = dataset.examples("train")
    ranking, distances = np.loadtxt(source / "myrank_train.txt"), np.loadtxt(source / "confidence_train.txt")
    assert knowledge.manifest.teacher == "imported"
    assert knowledge.manifest.depth == 5
    np.testing.assert_array_equal(knowledge.item_vectors, VECTORS)
    for row, example in enumerate(train.example_id):
        place = int(np.flatnonzero(knowledge.labels.example_id == example)[0])
        np.testing.assert_array_equal(knowledge.labels.ranked_items[place], ranking[row])
        np.testing.assert_allclose(knowledge.labels.distances[place], distances[row], rtol=1e-6)
        listed = np.flatnonzero(ranking[row] == train.target[row])
        expected = distances[row, listed[0]] if len(listed) else distances[row, -1]
        assert knowledge.labels.target_distance[place] == pytest.approx(expected)


def test_importing_twice_changes_nothing(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    first = import_legacy(dataset, source, out=tmp_path / "k")
    assert import_legacy(dataset, source, out=tmp_path / "k").content_hash == first.content_hash
    text = (source / "confidence_train.txt").read_text()
    (source / "confidence_train.txt").write_text("9" + text)
    with pytest.raises(UserError, match=r"settings\.confidence_train\.txt"):
        import_legacy(dataset, source, out=tmp_path / "k")


def test_what_is_exported_comes_back(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    knowledge = import_legacy(dataset, source, out=tmp_path / "k")
    export_legacy(knowledge, dataset, out=tmp_path / "exported")
    back = import_legacy(dataset, tmp_path / "exported", out=tmp_path / "back")
    np.testing.assert_array_equal(back.labels.example_id, knowledge.labels.example_id)
    np.testing.assert_array_equal(back.labels.ranked_items, knowledge.labels.ranked_items)
    np.testing.assert_array_equal(back.labels.distances, knowledge.labels.distances)  # to the last bit
    np.testing.assert_array_equal(back.labels.target_distance, knowledge.labels.target_distance)
    np.testing.assert_array_equal(back.item_vectors, VECTORS)


def test_the_original_code_can_read_the_export(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    export_legacy(import_legacy(dataset, source, out=tmp_path / "k"), dataset, out=tmp_path / "exported")
    ranking = torch.LongTensor(np.loadtxt(tmp_path / "exported" / "myrank_train.txt"))
    np.testing.assert_array_equal(ranking.numpy(), np.loadtxt(source / "myrank_train.txt"))
    distances = np.loadtxt(tmp_path / "exported" / "confidence_train.txt")
    np.testing.assert_allclose(distances, np.loadtxt(source / "confidence_train.txt"), rtol=1e-6)
    vectors = torch.load(tmp_path / "exported" / "all_embeddings.pt", weights_only=True)
    np.testing.assert_array_equal(vectors.numpy(), VECTORS)


def test_export_needs_a_label_for_each_training_example(
    tmp_path: Path, dataset: Dataset, manifest: KnowledgeManifest
) -> None:
    manifest = manifest.model_copy(
        update={"dataset_hash": dataset.content_hash, "num_items": 12, "depth": 1, "vector_size": None}
    )
    writer = KnowledgeWriter(tmp_path / "k", manifest)
    writer.append(
        Labels(
            example_id=dataset.examples("train").example_id[:2],
            ranked_items=np.zeros((2, 1), np.int32),
            distances=np.zeros((2, 1), np.float32),
            target_distance=np.zeros(2, np.float32),
            generated_text=["", ""],
        )
    )
    size = len(dataset.examples("train"))
    with pytest.raises(UserError, match=f"{size - 2} of {size} training examples have no label"):
        export_legacy(Knowledge.load(tmp_path / "k"), dataset, out=tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_export_does_not_overwrite(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    knowledge = import_legacy(dataset, source, out=tmp_path / "k")
    with pytest.raises(UserError, match="exists"):
        export_legacy(knowledge, dataset, out=source)


def test_vectors_alone(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "only"
    path.mkdir()
    np.save(path / "all_embeddings.npy", VECTORS)
    knowledge = import_legacy(dataset, path, out=tmp_path / "k")
    assert knowledge.manifest.depth == 0
    np.testing.assert_array_equal(knowledge.item_vectors, VECTORS)


def test_a_pickle_is_not_read_and_the_conversion_is_said(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    (source / "all_embeddings.npy").unlink()
    torch.save(torch.from_numpy(VECTORS), source / "all_embeddings.pt")
    with pytest.raises(UserError, match="a pickle, which is not read; convert it") as caught:
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()
    command = str(caught.value).split("convert it with: ")[1].removeprefix('python -c "').removesuffix('"')
    exec(command, {})  # what the message says works
    assert import_legacy(dataset, source, out=tmp_path / "k").manifest.vector_size == 4


def test_a_pickle_inside_npy_is_not_read(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    np.save(source / "all_embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"all_embeddings\.npy: not a \.npy file"):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((12, 0)), r"shape \[\d+, 0\]; it must be a vector for each"),
        (np.full((12, 2), 1e39), "row 1 is not finite in single precision"),
    ],
)
def test_vectors_that_are_none(
    tmp_path: Path, dataset: Dataset, source: Path, vectors: np.ndarray, message: str
) -> None:
    np.save(source / "all_embeddings.npy", vectors[: dataset.num_items])
    with pytest.raises(UserError, match=message):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_an_archive_is_no_table_of_vectors(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    with (source / "all_embeddings.npy").open("wb") as file:
        np.savez(file, vectors=np.ones((dataset.num_items, 2)))
    with pytest.raises(UserError, match="an archive of arrays"):
        import_legacy(dataset, source, out=tmp_path / "k")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_lists_of_one_item(tmp_path: Path, dataset: Dataset) -> None:
    count = dataset.manifest.counts["train"]
    np.savetxt(tmp_path / "myrank_train.txt", np.zeros((count, 1)), fmt="%d")
    np.savetxt(tmp_path / "confidence_train.txt", np.ones((count, 1)))
    assert import_legacy(dataset, tmp_path, out=tmp_path / "k").manifest.depth == 1


def _change(file: Path, row: int, text: str) -> None:
    lines = file.read_text().splitlines()
    lines[row] = text
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("myrank_train.txt", "0 1 2 3 12"), "row 3 lists 12, which is no item"),
        (("myrank_train.txt", "0 1 2 3 -1"), "row 3 lists -1, which is no item"),
        (("myrank_train.txt", "0 1 2 3 4.5"), r"row 3 lists 4\.5, which is no item"),
        (("myrank_train.txt", "0 1 2 3 nan"), "row 3 lists nan, which is no item"),
        (("myrank_train.txt", "0 1 2 3 3"), r"myrank_train\.txt: row 3 lists an item twice"),
        (("myrank_train.txt", "0 1 2 3"), "not a table of numbers"),
        (("confidence_train.txt", "a b c d e"), "not a table of numbers"),
        (("confidence_train.txt", "0 1 2 3 inf"), r"confidence_train\.txt: row 3 holds a distance that is not finite"),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, dataset: Dataset, source: Path, change: tuple[str, str], message: str
) -> None:
    _change(source / change[0], 2, change[1])
    with pytest.raises(UserError, match=message):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_row_count_must_match_the_dataset(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    size = len(dataset.examples("train"))
    with (source / "myrank_train.txt").open("a") as handle:
        handle.write("0 1 2 3 4\n")
    with pytest.raises(UserError, match=rf"{size + 1} rows, and the dataset has {size} training examples"):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_similarities_are_not_taken_for_distances(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    np.savetxt(source / "confidence_train.txt", -np.loadtxt(source / "confidence_train.txt"))
    with pytest.raises(UserError, match="it must hold distances"):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_files_that_do_not_fit_each_other(tmp_path: Path, dataset: Dataset, source: Path) -> None:
    np.save(source / "all_embeddings.npy", VECTORS[:7])
    with pytest.raises(UserError, match=r"all_embeddings\.npy: has the shape \[7, 4\].*each of 12 items"):
        import_legacy(dataset, source, out=tmp_path / "k")
    np.save(source / "all_embeddings.npy", VECTORS)
    np.savetxt(source / "confidence_train.txt", np.loadtxt(source / "confidence_train.txt")[:, :4])
    with pytest.raises(UserError, match=r"4 columns, myrank_train\.txt has 5"):
        import_legacy(dataset, source, out=tmp_path / "k")
    (source / "confidence_train.txt").unlink()
    with pytest.raises(UserError, match=r"confidence_train\.txt is missing"):
        import_legacy(dataset, source, out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_nothing_to_import(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither"):
        import_legacy(dataset, tmp_path / "empty", out=tmp_path / "k")
    with pytest.raises(UserError, match="no such directory"):
        import_legacy(dataset, tmp_path / "absent", out=tmp_path / "k")

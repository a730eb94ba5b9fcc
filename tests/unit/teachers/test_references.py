from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, Sequences, TrainOn
from dllm2rec.knowledge import KnowledgeWriter
from dllm2rec.knowledge.align import align
from dllm2rec.teachers import reference_teacher
from dllm2rec.teachers.ease import EASESettings
from dllm2rec.teachers.histories import history_weights
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import (
    BlendSettings,
    ItemKNNSettings,
    PopularitySettings,
    ReferenceSettings,
    TextSettings,
    column_scale,
    fit_item_knn,
    fit_reference,
    fit_text,
    standardised,
)


def sequences(*users: list[int]) -> Sequences:
    return Sequences(
        items=np.array([item for user in users for item in user], dtype=np.int32),
        times=np.arange(sum(map(len, users))),
        offsets=np.cumsum([0, *map(len, users)]),
    )


def test_history_weights_by_age() -> None:
    history = np.array([[4, 4, 1], [2, 0, 2], [4, 4, 4]])
    weights = history_weights(history, num_items=4, decay=0.5).toarray()
    np.testing.assert_allclose(weights, [[0, 1, 0, 0], [0.5, 0, 1.25, 0], [0, 0, 0, 0]])


def test_item_knn_by_hand() -> None:
    """User a: 0, 1, 2; user b: 3, alone. Each item is counted once, so all are divided by sqrt(2 * 2)."""
    fitted = fit_item_knn(ItemKNNSettings(steps=2, backward=0.5), sequences([0, 1, 2], [3]), num_items=5)
    forward = np.zeros((5, 5))
    forward[0, 1] = forward[1, 2] = 1
    forward[0, 2] = 1 / 2
    np.testing.assert_allclose(fitted.similarity.toarray(), (forward + 0.5 * forward.T) / 2)


def test_item_knn_counts_and_normalises() -> None:
    """0 then 1, twice: c = 2 and n = 2 for both, so the similarity is 2 / 3."""
    fitted = fit_item_knn(ItemKNNSettings(), sequences([0, 1], [0, 1]), num_items=2)
    np.testing.assert_allclose(fitted.similarity.toarray(), [[0, 2 / 3], [1 / 3, 0]], rtol=1e-6)


def test_item_knn_looks_no_further_than_its_steps() -> None:
    near = fit_item_knn(ItemKNNSettings(steps=1), sequences([0, 1, 2]), num_items=3).similarity.toarray()
    assert near[0, 1] > 0
    assert near[0, 2] == 0


def test_item_knn_scores_a_history() -> None:
    fitted = fit_item_knn(ItemKNNSettings(decay=0.5), sequences([0, 1], [2, 3]), num_items=4)
    rows = fitted.similarity.toarray()
    scores = fitted.scores(np.array([[0, 2], [4, 2]], dtype=np.int32))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0.5 * rows[0] + rows[2], rows[2]], rtol=1e-6)


def test_item_knn_keeps_the_nearest() -> None:
    log = sequences([0, 1, 2, 3], [0, 1], [4, 2])
    every = fit_item_knn(ItemKNNSettings(), log, num_items=5).similarity.toarray()
    kept = fit_item_knn(ItemKNNSettings(neighbours=2), log, num_items=5).similarity.toarray()
    for row, bounded in zip(every, kept, strict=True):
        best = np.argsort(-row, kind="stable")[:2]
        expected = np.zeros(5)
        expected[best] = row[best]
        np.testing.assert_allclose(bounded, expected)


def test_popularity_is_the_share_of_training(tiny_dataset: Dataset) -> None:
    counts = tiny_dataset.train_counts()
    scores = fit_reference(PopularitySettings(), tiny_dataset).scores(np.zeros((3, 10), np.int32))
    np.testing.assert_allclose(scores, np.tile(counts / counts.sum(), (3, 1)), rtol=1e-6)


def test_where_nothing_was_chosen_nothing_is_popular(tiny_dataset: Dataset) -> None:
    nothing = tiny_dataset.training_sequences().of(np.zeros(tiny_dataset.manifest.num_users, bool))
    for settings in (PopularitySettings(), PopularitySettings(recent=0.1)):
        assert not fit_reference(settings, tiny_dataset, sequences=nothing).share.any()


@pytest.mark.parametrize("train_on", ["positions", "before-cut"])
@pytest.mark.parametrize("odd", [False, True])
def test_recent_popularity_counts_the_newest_of_what_it_is_given(
    tiny_dataset: Dataset, train_on: TrainOn, *, odd: bool
) -> None:
    given = tiny_dataset.training_sequences(train_on)
    if odd:
        given = given.of(np.arange(len(given)) % 2 == 1)
    events = sorted(zip(given.times.tolist(), given.items.tolist(), strict=True), key=lambda event: event[0])
    size = round(0.25 * len(events))
    expected = np.zeros(tiny_dataset.num_items)
    for _, item in events[-size:]:
        expected[item] += 1 / size
    share = fit_reference(PopularitySettings(recent=0.25), tiny_dataset, sequences=given).share
    np.testing.assert_allclose(share, expected, rtol=1e-6)


def test_text_neighbours_by_hand() -> None:
    """The mean is (1, 0): the items point right, left, nowhere and up."""
    vectors = np.array([[3, 0], [-1, 0], [1, 0], [1, 5], [1, -5]], dtype=np.float32)
    fitted = fit_text(TextSettings(decay=0.5), vectors, num_items=5)
    np.testing.assert_allclose(fitted.vectors, [[1, 0], [-1, 0], [0, 0], [0, 1], [0, -1]])
    scores = fitted.scores(np.array([[3, 0]]))
    np.testing.assert_allclose(scores, [[1, -1, 0, 0.5, -0.5]])


def test_blend_adds(tiny_dataset: Dataset) -> None:
    vectors = np.random.default_rng(0).normal(size=(tiny_dataset.num_items, 3)).astype(np.float32)
    history = tiny_dataset.examples("test").history
    knn, text = (
        fit_reference(settings, tiny_dataset, item_vectors=vectors).scores(history)
        for settings in (ItemKNNSettings(), TextSettings())
    )
    blend = fit_reference(BlendSettings(text_weight=0.3), tiny_dataset, item_vectors=vectors).scores(history)
    np.testing.assert_allclose(blend, knn + 0.3 * text, rtol=1e-5, atol=1e-6)


def test_a_blend_with_an_open_weight_is_not_fitted(tiny_dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="text_weight is open"):
        fit_reference(BlendSettings(), tiny_dataset, item_vectors=np.eye(tiny_dataset.num_items, dtype=np.float32))


@pytest.mark.parametrize("settings", [TextSettings(), BlendSettings(text_weight=0.1)])
def test_text_needs_vectors_of_the_catalogue(tiny_dataset: Dataset, settings: ReferenceSettings) -> None:
    with pytest.raises(UserError, match="need item vectors"):
        fit_reference(settings, tiny_dataset)
    with pytest.raises(UserError, match=f"3 item vectors for {tiny_dataset.num_items} items"):
        fit_reference(settings, tiny_dataset, item_vectors=np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "knn", "steps": 0},
        {"kind": "knn", "decay": 1.5},
        {"kind": "text", "steps": 1},
        {"kind": "ease", "regularisation": 0},
        {"kind": "ease", "max_items": 0},
        {"kind": "magic"},
    ],
)
def test_settings_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ReferenceSettings).validate_python(bad)


def test_labels_are_the_scores(tmp_path: Path, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    knowledge = label_with_reference(
        tiny_dataset, ItemKNNSettings(), examples=train, out=tmp_path / "k", depth=5, batch_size=7
    )
    assert knowledge.manifest.teacher == "knn"
    assert knowledge.manifest.settings["steps"] == 5
    scores = fit_reference(ItemKNNSettings(), tiny_dataset).scores(train.history)
    labels = knowledge.labels.take(align(knowledge, tiny_dataset, train))
    np.testing.assert_array_equal(labels.ranked_items, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(labels.distances, np.sort(-scores, axis=1)[:, :5], rtol=1e-6)
    np.testing.assert_allclose(labels.target_distance, -scores[np.arange(len(train)), train.target], rtol=1e-6)


def test_labelling_resumes(tmp_path: Path, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    some = train.take(np.arange(0, len(train), 3))
    label_with_reference(tiny_dataset, PopularitySettings(), examples=some, out=tmp_path / "k", batch_size=4)
    resumed = label_with_reference(tiny_dataset, PopularitySettings(), examples=train, out=tmp_path / "k", batch_size=4)
    whole = label_with_reference(tiny_dataset, PopularitySettings(), examples=train, out=tmp_path / "whole")
    assert resumed.content_hash == whole.content_hash
    assert resumed.manifest.depth == tiny_dataset.num_items  # fewer than 100
    assert KnowledgeWriter(tmp_path / "k", resumed.manifest).labelled_ids().tolist() == sorted(train.example_id)


def test_labels_with_other_vectors_are_other_knowledge(tmp_path: Path, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    vectors = np.random.default_rng(0).normal(size=(tiny_dataset.num_items, 3)).astype(np.float32)
    label_with_reference(tiny_dataset, TextSettings(), examples=train, out=tmp_path / "k", item_vectors=vectors)
    with pytest.raises(UserError, match="revision is"):
        label_with_reference(tiny_dataset, TextSettings(), examples=train, out=tmp_path / "k", item_vectors=vectors + 1)


@pytest.mark.parametrize(
    "settings", [ItemKNNSettings(), EASESettings(regularisation=5), PopularitySettings(recent=0.5)]
)
def test_a_reference_that_counted_an_answer_does_not_label_it(
    tmp_path: Path, tiny_dataset: Dataset, settings: ReferenceSettings
) -> None:
    train, test = tiny_dataset.training_examples("before-cut"), tiny_dataset.examples("test")
    known = {"train_on": "before-cut", "depth": 5}
    folded = label_with_reference(tiny_dataset, settings, examples=train, out=tmp_path / "k", folds=2, **known)
    fold = numpy_generator(0, "folds").integers(0, 2, len(tiny_dataset.training_sequences()))
    assert 0 < fold.sum() < len(fold)
    sequences = tiny_dataset.training_sequences("before-cut")
    for number in (0, 1):
        others = fit_reference(settings, tiny_dataset, sequences=sequences.of(fold != number))
        part = train.take(fold[train.user] == number)
        labels = folded.labels.take(align(folded, tiny_dataset, part))
        listed = _listed(others.scores(part.history), sequences.of(fold != number))
        np.testing.assert_array_equal(labels.ranked_items, listed)
    # what no sequence holds is labelled by all of them
    later = label_with_reference(tiny_dataset, settings, examples=test, out=tmp_path / "test", folds=2, **known)
    everything = fit_reference(settings, tiny_dataset, sequences=sequences)
    labels = later.labels.take(align(later, tiny_dataset, test))
    np.testing.assert_array_equal(labels.ranked_items, _listed(everything.scores(test.history), sequences))


def _listed(scores: np.ndarray, counted: Sequences) -> list[list[int]]:
    """List the five best of each row, of equals what was chosen oftener, then by index."""
    times = Counter(counted.items.tolist())
    return [sorted(range(len(row)), key=lambda item: (-row[item], -times[item], item))[:5] for row in scores]


def test_lists_longer_than_what_is_known_end_with_what_is_popular(tmp_path: Path, tiny_dataset: Dataset) -> None:
    test, depth = tiny_dataset.examples("test"), tiny_dataset.num_items
    settings = ItemKNNSettings(steps=1)
    labels = label_with_reference(tiny_dataset, settings, examples=test, out=tmp_path / "k", depth=depth).labels
    counts = tiny_dataset.train_counts("positions")
    unknown = labels.distances == 0
    assert unknown.any()
    for items, tail in zip(labels.ranked_items, unknown, strict=True):
        assert (np.diff(counts[items[tail]]) <= 0).all()


def test_a_large_catalogue_is_labelled_a_few_examples_at_a_time(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = tiny_dataset.examples("test")
    whole = label_with_reference(tiny_dataset, ItemKNNSettings(), examples=test, out=tmp_path / "whole")
    monkeypatch.setattr(reference_teacher, "_SCORES_AT_ONCE", 2 * tiny_dataset.num_items)
    parts = label_with_reference(tiny_dataset, ItemKNNSettings(), examples=test, out=tmp_path / "parts")
    assert parts.content_hash == whole.content_hash


def test_labelling_in_folds_resumes(tmp_path: Path, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.training_examples("positions")
    some = train.take(np.arange(0, len(train), 3))
    how = {"folds": 3, "batch_size": 4}
    label_with_reference(tiny_dataset, ItemKNNSettings(), examples=some, out=tmp_path / "k", **how)
    resumed = label_with_reference(tiny_dataset, ItemKNNSettings(), examples=train, out=tmp_path / "k", **how)
    whole = label_with_reference(tiny_dataset, ItemKNNSettings(), examples=train, out=tmp_path / "whole", **how)
    assert resumed.content_hash == whole.content_hash


def test_the_vectors_of_a_reference_by_text_are_part_of_its_knowledge(tmp_path: Path, tiny_dataset: Dataset) -> None:
    vectors = np.random.default_rng(0).normal(size=(tiny_dataset.num_items, 3)).astype(np.float32)
    test = tiny_dataset.examples("test")
    blend = BlendSettings(text_weight=0.1)
    for settings, expected in ((blend, vectors), (ItemKNNSettings(), None), (EASESettings(), None)):
        out = tmp_path / settings.kind
        knowledge = label_with_reference(tiny_dataset, settings, examples=test, out=out, item_vectors=vectors)
        np.testing.assert_array_equal(knowledge.item_vectors, expected)


def test_a_constant_column_is_only_centred_however_many_items_there_are() -> None:
    vectors = np.full((200_000, 2), 0.7, np.float32)
    vectors[:, 1] = np.random.default_rng(0).normal(size=len(vectors))
    mean, deviation = column_scale(vectors)
    assert deviation[0] == 1
    np.testing.assert_allclose(standardised(vectors)[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose([mean[1], deviation[1]], [0, 1], atol=0.01)

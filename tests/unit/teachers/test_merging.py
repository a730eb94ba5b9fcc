"""Knowledge of several teachers becomes knowledge of one: by a loop, resumed, blind to the test part, and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm2rec.comparison.diagnosis import describe_mixture
from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Examples, Split
from dllm2rec.knowledge import Knowledge, KnowledgeWriter, Labels
from dllm2rec.knowledge.align import align
from dllm2rec.knowledge.confidence import calibration_error, likeliest_temperature, shares
from dllm2rec.teachers import merging
from dllm2rec.teachers.merging import Mixture, merge, mixture_of
from dllm2rec.teachers.mixture import fit_weights
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import ItemKNNSettings, PopularitySettings, ReferenceSettings, TextSettings


def everything(dataset: Dataset) -> Examples:
    parts = [dataset.training_examples("before-cut"), dataset.examples("validation"), dataset.examples("test")]
    return Examples.join(parts)


def taught(dataset: Dataset, settings: ReferenceSettings, out: Path, **options: Any) -> Knowledge:
    values: dict[str, Any] = {"examples": everything(dataset), "train_on": "before-cut", "folds": 2, "depth": 12}
    return label_with_reference(dataset, settings, out=out, **{**values, **options})


def vectors_of(dataset: Dataset, size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(2, 3, size=(dataset.num_items, size)).astype(np.float32)


@pytest.fixture
def sources(tiny_dataset: Dataset, tmp_path: Path) -> list[Knowledge]:
    """One teacher that labelled all, and one that left every third example out."""
    some = everything(tiny_dataset)
    some = some.take(np.arange(len(some)) % 3 > 0)
    vectors = vectors_of(tiny_dataset, 4)
    return [
        taught(tiny_dataset, ItemKNNSettings(), tmp_path / "knn"),
        taught(tiny_dataset, TextSettings(), tmp_path / "text", examples=some, item_vectors=vectors, depth=9),
    ]


def found(knowledge: Knowledge) -> Mixture:
    mixture = mixture_of(knowledge)
    assert mixture is not None
    return mixture


def test_it_is_the_mixture_that_validation_asks_for(
    tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path
) -> None:
    merged = merge(tiny_dataset, sources, out=tmp_path / "merged", batch_size=7)
    validation, num_items = tiny_dataset.examples("validation"), tiny_dataset.num_items
    rows = [align(one, tiny_dataset, validation) for one in sources]
    share, temperatures = np.zeros((len(validation), 2)), []
    for k, one in enumerate(sources):
        known = rows[k] >= 0
        lists = {name: getattr(one.labels, name)[rows[k][known]] for name in ("ranked_items", "distances")}
        temperatures.append(likeliest_temperature(**lists, target=validation.target[known], num_items=num_items))
        chances = shares(**lists, temperature=temperatures[-1], num_items=num_items)
        share[known, k] = chances.of(validation.target[known])
    weights = fit_weights(share, np.stack(rows, axis=1) >= 0)
    mixture = found(merged)
    assert [one.temperature for one in mixture.sources] == pytest.approx(temperatures)
    assert [one.weight for one in mixture.sources] == pytest.approx(weights.tolist())
    assert [(one.teacher, one.hash) for one in mixture.sources] == [
        (one.manifest.teacher, one.content_hash) for one in sources
    ]
    assert (merged.manifest.teacher, merged.manifest.model, merged.manifest.depth) == ("merged", "knn + text", 9)
    assert [one.depth for one in mixture.sources] == [12, 9]
    assert any("Lists are cut to 9 items, the depth of text" in text for text in describe_mixture(mixture))
    labels = merged.labels.take(align(merged, tiny_dataset, validation))
    chance = np.stack([row >= 0 for row in rows], axis=1) * weights
    chance = (chance / chance.sum(axis=1, keepdims=True) * share).sum(axis=1)
    np.testing.assert_allclose(labels.target_distance, -np.log(chance), rtol=1e-5)
    hit = labels.ranked_items[:, 0] == validation.target
    assert mixture.calibration_error == pytest.approx(calibration_error(np.exp(-labels.distances[:, 0]), hit))
    assert mixture.validation_examples == len(validation)


def test_every_example_that_any_teacher_labelled_has_a_label(tiny_dataset: Dataset, tmp_path: Path) -> None:
    train, validation, test = (tiny_dataset.examples(split) for split in ("train", "validation", "test"))
    parts = [Examples.join([train, validation]), Examples.join([validation, test])]
    sources = [
        taught(tiny_dataset, settings, tmp_path / settings.kind, examples=part, folds=1)
        for settings, part in zip((ItemKNNSettings(), PopularitySettings()), parts, strict=True)
    ]
    merged = merge(tiny_dataset, sources, out=tmp_path / "merged", depth=5)
    expected = np.sort(np.concatenate([train.example_id, validation.example_id, test.example_id]))
    np.testing.assert_array_equal(merged.labels.example_id, expected)
    assert merged.labels.ranked_items.shape == (len(expected), 5)
    assert (np.diff(merged.labels.distances, axis=1) >= 0).all()
    for one, part in zip(sources, (train, test), strict=True):  # who is alone keeps his order
        own, joint = (
            one.labels.take(align(one, tiny_dataset, part)),
            merged.labels.take(align(merged, tiny_dataset, part)),
        )
        np.testing.assert_array_equal(joint.ranked_items, own.ranked_items[:, :5])


def test_the_order_of_sources_does_not_matter(tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path) -> None:
    one = merge(tiny_dataset, sources, out=tmp_path / "one")
    other = merge(tiny_dataset, sources[::-1], out=tmp_path / "other")
    np.testing.assert_array_equal(one.labels.ranked_items, other.labels.ranked_items)
    np.testing.assert_allclose(one.labels.distances, other.labels.distances, rtol=1e-5)
    np.testing.assert_allclose(one.labels.target_distance, other.labels.target_distance, rtol=1e-5)
    for first, second in zip(found(one).sources, found(other).sources[::-1], strict=True):
        assert first.weight == pytest.approx(second.weight)
        assert first.temperature == second.temperature
    assert found(one).calibration_error == pytest.approx(found(other).calibration_error)


class OtherTargets(Dataset):
    """A dataset whose users chose something else in the end."""

    def examples(self, split: Split) -> Examples:
        found = super().examples(split)
        return replace(found, target=(found.target + 3) % self.num_items) if split == "test" else found


def test_nothing_is_learned_from_the_test_part(tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path) -> None:
    test = tiny_dataset.examples("test")
    merged = merge(tiny_dataset, sources, out=tmp_path / "merged")
    for number, one in enumerate(sources):
        rows = align(one, tiny_dataset, test)
        rows = rows[rows >= 0]
        one.labels.ranked_items[rows] = one.labels.ranked_items[rows][:, ::-1]
        one.labels.distances[rows] = 5.0
        one.labels.target_distance[rows] = -1.0
        sources[number] = replace(one)  # with a hash of its own
    other = merge(OtherTargets.load(tiny_dataset.path), sources, out=tmp_path / "other")
    mixtures = [found(one) for one in (merged, other)]
    for first, second in zip(mixtures[0].sources, mixtures[1].sources, strict=True):
        assert first.hash != second.hash
        assert (first.temperature, first.weight) == (second.temperature, second.weight)
    assert mixtures[0].calibration_error == mixtures[1].calibration_error
    kept = ~np.isin(merged.labels.example_id, test.example_id)
    np.testing.assert_array_equal(merged.labels.example_id, other.labels.example_id)
    np.testing.assert_array_equal(merged.labels.distances[kept], other.labels.distances[kept])
    assert not np.array_equal(merged.labels.distances[~kept], other.labels.distances[~kept])


def test_merging_resumes(
    tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = merge(tiny_dataset, sources, out=tmp_path / "whole")

    class Dying(KnowledgeWriter):
        def append(self, labels: Labels) -> None:
            if self._shards == 2:
                raise KeyboardInterrupt
            super().append(labels)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "KnowledgeWriter", Dying)
        with pytest.raises(KeyboardInterrupt):
            merge(tiny_dataset, sources, out=tmp_path / "merged", batch_size=20)
    resumed = merge(tiny_dataset, sources, out=tmp_path / "merged", batch_size=30)
    assert resumed.content_hash == whole.content_hash


def test_item_vectors_of_the_first_source_or_of_all(tiny_dataset: Dataset, tmp_path: Path) -> None:
    vectors = [vectors_of(tiny_dataset, size) for size in (4, 3)]
    vectors[1][:, 1] = 7
    sources = [taught(tiny_dataset, ItemKNNSettings(), tmp_path / "knn")] + [
        taught(tiny_dataset, TextSettings(), tmp_path / f"text-{number}", item_vectors=own)
        for number, own in enumerate(vectors)
    ]
    first = merge(tiny_dataset, sources, out=tmp_path / "first")
    np.testing.assert_array_equal(first.item_vectors, vectors[0])
    merged = merge(tiny_dataset, sources, out=tmp_path / "all", vectors="concatenated")
    assert merged.item_vectors is not None
    joined = np.concatenate(vectors, axis=1)
    expected = (joined - joined.mean(axis=0)) / np.where(joined.std(axis=0) > 0, joined.std(axis=0), 1)
    np.testing.assert_allclose(merged.item_vectors, expected, atol=1e-5)
    bare = merge(
        tiny_dataset, [sources[0], taught(tiny_dataset, PopularitySettings(), tmp_path / "p")], out=tmp_path / "b"
    )
    assert bare.item_vectors is None
    assert mixture_of(sources[0]) is None


def test_who_lists_nothing_brings_item_vectors(tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path) -> None:
    vectors = vectors_of(tiny_dataset, 3)
    manifest = sources[0].manifest.model_copy(update={"teacher": "encoder", "depth": 0, "vector_size": 3})
    KnowledgeWriter(tmp_path / "silent", manifest).write_item_vectors(vectors)
    silent = Knowledge.load(tmp_path / "silent")
    without = merge(tiny_dataset, sources, out=tmp_path / "without", vectors="concatenated")
    merged = merge(tiny_dataset, [silent, *sources], out=tmp_path / "with", vectors="concatenated")
    np.testing.assert_array_equal(merged.labels.ranked_items, without.labels.ranked_items)
    np.testing.assert_array_equal(merged.labels.distances, without.labels.distances)
    assert merged.item_vectors is not None
    np.testing.assert_allclose(merged.item_vectors[:, :3], (vectors - vectors.mean(0)) / vectors.std(0), atol=1e-5)
    first = found(merged).sources[0]
    assert (first.teacher, first.temperature, first.weight) == ("encoder", None, 0.0)
    with pytest.raises(UserError, match=r"silent: lists no items.*set vectors=concatenated"):
        merge(tiny_dataset, [silent, *sources], out=tmp_path / "first")
    other = replace(silent, item_vectors=2 * vectors)
    with pytest.raises(UserError, match=r"no source lists items; merge with one that does"):
        merge(tiny_dataset, [silent, other], out=tmp_path / "none", vectors="concatenated")


def test_what_can_not_be_merged(tiny_dataset: Dataset, sources: list[Knowledge], tmp_path: Path) -> None:
    train = tiny_dataset.examples("train")
    blind = taught(tiny_dataset, PopularitySettings(), tmp_path / "blind", examples=train)
    other = replace(sources[1], manifest=sources[1].manifest.model_copy(update={"dataset_hash": "another"}))
    bare = replace(sources[1], manifest=sources[1].manifest.model_copy(update={"depth": 0}), labels=Labels.empty(0))
    copy = replace(sources[0], path=tmp_path / "copy")
    for second, words in (
        (blind, r"blind: labels no validation example.*limits\.validation"),
        (other, "text: knowledge of another dataset .content hash another"),
        (bare, "text: lists no items"),
        (copy, f"copy: the same knowledge as {sources[0].path}"),
    ):
        with pytest.raises(UserError, match=words):
            merge(tiny_dataset, [sources[0], second], out=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge(tiny_dataset, sources, out=tmp_path / "merged")
    with pytest.raises(UserError, match="holds other knowledge"):
        merge(tiny_dataset, sources[::-1], out=tmp_path / "merged")

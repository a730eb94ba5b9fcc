"""What stands beside the runs of a table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from dllm2rec.comparison.evidence import judge_teacher
from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, Examples, TrainOn, extend
from dllm2rec.evaluation import references
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.evaluation.references import (
    TEXT_WEIGHTS,
    Follows,
    best_vectors,
    reference_ranks,
    reference_score,
    score_with_reference,
    with_text_weight,
)
from dllm2rec.knowledge import Knowledge, KnowledgeWriter
from dllm2rec.settings.teacher import ReferenceTeacher
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import (
    BlendSettings,
    ItemKNNSettings,
    PopularitySettings,
    ReferenceSettings,
    fit_item_knn,
    fit_reference,
)
from dllm2rec.workflow.teaching import teach, teach_only_new


def _best_weight(dataset: Dataset, vectors: np.ndarray, *, masked: bool) -> float:
    """Try the weights one example at a time."""
    some = dataset.examples("validation")
    reached = []
    for weight in TEXT_WEIGHTS:
        scorer = fit_reference(BlendSettings(text_weight=weight), dataset, item_vectors=vectors)
        total = 0.0
        for history, target in zip(some.history, some.target, strict=True):
            scores = scorer.scores(history[None])[0]
            own = scores[target]
            others = [i for i in range(dataset.num_items) if i != target and not (masked and i in history)]
            rank = 1 + (scores[others] > own).sum() + (scores[others] == own).sum() / 2
            total += 1 / np.log2(rank + 1) if rank <= 20 else 0
        reached.append(total)
    return TEXT_WEIGHTS[int(np.argmax(reached))]


@pytest.mark.parametrize("rare", [False, True])
def test_the_weight_of_text_is_the_best_on_validation(
    small: Dataset, rare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examples, "repeats_are_rare", property(lambda _: rare))
    chosen = set()
    for seed in range(4):
        vectors = numpy_generator(seed, "text").normal(size=(small.num_items, 3)).astype(np.float32)
        weight = with_text_weight(BlendSettings(), small, item_vectors=vectors, train_on="positions").text_weight
        assert weight == _best_weight(small, vectors, masked=rare)
        chosen.add(weight)
    assert len(chosen) > 1


def test_text_that_says_nothing_has_no_weight(small: Dataset) -> None:
    vectors = np.ones((small.num_items, 3), np.float32)
    assert with_text_weight(BlendSettings(), small, item_vectors=vectors, train_on="positions").text_weight == 0.0
    blend = reference_ranks(BlendSettings(), small, small.examples("test"), item_vectors=vectors)
    knn = reference_ranks(ItemKNNSettings(), small, small.examples("test"))
    np.testing.assert_array_equal(blend.rank, knn.rank)


def test_a_reference_that_leaves_histories_out_ranks_as_if_they_were_masked(small: Dataset) -> None:
    test = small.examples("test")
    left_out = reference_ranks(ItemKNNSettings(), small, test, follows="history")
    masked = reference_ranks(ItemKNNSettings(), small, test, mask_history=True)
    np.testing.assert_array_equal(left_out.rank[~test.repeats], masked.rank[~test.repeats])
    assert (left_out.rank[test.repeats] > small.num_items - 5).all()  # histories hold four


def test_of_several_item_vectors_those_that_are_best_on_validation_are_read(
    small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examples, "repeats_are_rare", property(lambda _: False))
    several = [numpy_generator(seed, "text").normal(size=(small.num_items, 3)).astype(np.float32) for seed in range(5)]

    def reached(vectors: np.ndarray) -> float:
        ranks = reference_ranks(BlendSettings(), small, small.examples("validation"), item_vectors=vectors)
        return float(ndcg(ranks.rank, 20).mean())

    best = max(several, key=reached)
    assert reached(best) > min(map(reached, several))
    assert best_vectors(several, small, "positions") is best
    assert best_vectors([several[0], several[0].copy()], small, "positions") is several[0]
    assert best_vectors([], small, "positions") is None


def test_what_is_set_stays(small: Dataset) -> None:
    for settings in (BlendSettings(text_weight=0.3), ItemKNNSettings()):
        assert with_text_weight(settings, small, item_vectors=None, train_on="positions") == settings


def test_a_weight_needs_vectors(small: Dataset) -> None:
    with pytest.raises(UserError, match="need item vectors"):
        with_text_weight(BlendSettings(), small, item_vectors=None, train_on="positions")


def taught_and_longer(small: Dataset, reference: ReferenceSettings, folder: Path) -> tuple[Knowledge, Dataset]:
    """Knowledge of a reference that reads text, and its dataset with newer events."""
    vectors = numpy_generator(0, "text").normal(size=(small.num_items, 3)).astype(np.float32)
    manifest = teach(small, ReferenceTeacher(), out=folder / "knn").manifest.model_copy(update={"vector_size": 3})
    KnowledgeWriter(folder / "vectors", manifest).write_item_vectors(vectors)
    teacher = ReferenceTeacher(reference=reference, vectors=folder / "vectors")
    before = teach(small, teacher, out=folder / "before")
    later = {"user_id": range(40), "item_id": range(40), "timestamp": range(10**6, 10**6 + 40)}
    pl.DataFrame(later).write_csv(folder / "log.csv")
    return before, extend(small, folder / "log.csv", None, out=folder / "longer")


def test_labels_that_are_added_have_the_weight_of_the_others(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, longer = taught_and_longer(small, BlendSettings(), tmp_path)
    assert before.manifest.settings["text_weight"] in TEXT_WEIGHTS
    monkeypatch.setattr(references, "TEXT_WEIGHTS", (0.7,))
    after = teach_only_new(longer, before, out=tmp_path / "after")
    assert after.manifest.settings["text_weight"] == before.manifest.settings["text_weight"]
    assert set(after.labels.example_id) > set(before.labels.example_id)


def test_lists_that_are_added_are_as_deep_as_the_others(small: Dataset, tmp_path: Path) -> None:
    """All of a small catalogue was listed; the larger one holds more than that and less than the depth asked for."""
    before = teach(small, ReferenceTeacher(depth=10**4), out=tmp_path / "before")
    assert before.manifest.depth == small.num_items
    later = {"user_id": range(40), "item_id": [*range(39), 10**6], "timestamp": range(10**6, 10**6 + 40)}
    pl.DataFrame(later).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": [10**6], "title": ["new"]}).write_csv(tmp_path / "items.csv")
    longer = extend(small, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "longer")
    after = teach_only_new(longer, before, out=tmp_path / "after")
    assert longer.num_items == small.num_items + 1
    assert after.manifest.depth == before.manifest.depth
    assert len(after.labels) >= len(before.labels)


def test_a_teacher_is_ranked_without_the_history_as_all_others_are(small: Dataset, tmp_path: Path) -> None:
    examples = small.examples("test")
    settings = ItemKNNSettings()
    taught = label_with_reference(small, settings, examples=examples, out=tmp_path / "k", depth=small.num_items)
    for mask_history in (False, True):
        score = score_with_reference(fit_reference(settings, small))
        expected = rank_targets(score, examples, mask_history=mask_history).rank
        judged = judge_teacher(taught, small, examples, mask_history=mask_history)
        assert judged is not None
        listed = np.isfinite(judged.ranks.rank)  # of the tied ones at the end nobody knows the place
        assert listed.mean() > 0.2
        np.testing.assert_array_equal(judged.ranks.rank[listed], expected[listed])
    held = (judged.ranks.top_items[:, :20, None] == examples.history[:, None, :]).any(axis=2)
    assert not (held & (judged.ranks.top_items[:, :20] != examples.target[:, None])).any()


@pytest.mark.parametrize("what", ["nothing", "history", "ever"])
def test_a_teacher_leaves_out_what_the_student_beside_it_does(what: Follows, small: Dataset, tmp_path: Path) -> None:
    examples = small.examples("test")
    settings = ItemKNNSettings()
    kept = examples.take(np.arange(len(examples)) % 2 == 0)
    taught = label_with_reference(small, settings, examples=kept, out=tmp_path / "k", depth=small.num_items)
    judged = judge_teacher(taught, small, examples)
    assert judged is not None
    found = judged.ranks_without(what, examples)
    expected = reference_ranks(settings, small, kept, follows=what)
    returns = kept.past.holds(kept.target[:, None])[:, 0] if what == "ever" else kept.repeats & (what == "history")
    assert np.isinf(found.rank[returns]).all()  # also the target, if it was chosen before
    listed = np.isfinite(found.rank)
    assert listed.mean() > 0.2
    np.testing.assert_array_equal(found.rank[listed], expected.rank[listed])
    assert (found.rank == judged.ranks.rank).all() == (what == "nothing")


@pytest.mark.parametrize("train_on", ["positions", "before-cut"])
def test_a_reference_of_a_table_is_fitted_to_what_the_runs_learned_from(
    train_on: TrainOn, small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, whole = small.examples("test").history, small.training_sequences("before-cut")
    half = whole.of(np.arange(len(whole)) < 25)
    monkeypatch.setattr(Dataset, "training_sequences", lambda _, on="positions": half if on == "positions" else whole)
    fitted = {
        on: fit_item_knn(ItemKNNSettings(), some, num_items=small.num_items)
        for on, some in (("positions", half), ("before-cut", whole))
    }
    found = reference_score(ItemKNNSettings(), small, train_on=train_on)(torch.from_numpy(history).long()).numpy()
    np.testing.assert_array_equal(found, fitted[train_on].scores(history))
    assert (fitted["positions"].scores(history) != fitted["before-cut"].scores(history)).any()


def test_all_that_was_ever_chosen_is_left_out_where_the_row_says_so(small: Dataset) -> None:
    examples = small.examples("test")
    known = torch.from_numpy(examples.known()).long()
    assert known.shape[1] > examples.history.shape[1]
    for follows, left_out in (("history", examples.history), ("ever", examples.known())):
        scores = reference_score(PopularitySettings(), small, follows=follows)(known).numpy()
        held = np.zeros((len(examples), small.num_items + 1), bool)
        np.put_along_axis(held, left_out.astype(np.int64), values=True, axis=1)
        assert scores[held[:, :-1]].max() < scores[~held[:, :-1]].min()

"""The doctor's numbers on labels that are known, and what it says about them."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from dllm2rec.comparison import doctor
from dllm2rec.comparison.diagnosis import diagnose, headline
from dllm2rec.comparison.doctor import examine, labels_among
from dllm2rec.comparison.examination import Coverage, Hits
from dllm2rec.data import Dataset, TrainOn
from dllm2rec.evaluation.references import reference_ranks
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, Labels
from dllm2rec.settings.teacher import Limits, ReferenceTeacher
from dllm2rec.teachers.cost import TIMING
from dllm2rec.teachers.references import ItemKNNSettings, PopularitySettings
from dllm2rec.workflow.labelling import seconds_per_1000, unfinished_texts
from dllm2rec.workflow.teaching import teach


def knowledge(dataset: Dataset, path: Path, *, right: bool, **changes: Any) -> Knowledge:
    """Labels all examples: the target stands first, or is not in the list; distances grow from 1 to N."""
    parts = [dataset.examples(split) for split in ("train", "validation", "test")]
    ids, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("example_id", "target"))
    order = np.argsort(ids)
    ids, targets = ids[order], targets[order]
    shift = 0 if right else 1
    items = (targets[:, None] + shift + np.arange(25)) % dataset.num_items
    labels: dict[str, Any] = {
        "example_id": ids,
        "ranked_items": items.astype(np.int32),
        "distances": np.tile(np.arange(25, dtype=np.float32), (len(ids), 1)),
        "target_distance": np.arange(1, len(ids) + 1, dtype=np.float32),
        "generated_text": [f"Thing {target}" for target in targets],
    }
    vectors = changes.pop("item_vectors", np.random.default_rng(0).normal(size=(dataset.num_items, 6)))
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="bigrec",
        model="tiny",
        depth=25,
        vector_size=6,
    )
    return Knowledge(
        path=path, manifest=manifest, labels=Labels(**{**labels, **changes}), item_vectors=vectors.astype(np.float32)
    )


def test_a_teacher_that_is_always_right(small: Dataset, tmp_path: Path) -> None:
    page = examine(knowledge(small, tmp_path, right=True), small)
    assert {split: found.labelled for split, found in page.coverage.items()} == small.manifest.counts
    for rival in page.rivals:
        assert rival.teacher == {"HR@20": 1.0, "NDCG@20": 1.0}
    assert page.texts is not None
    assert page.texts.titles == 1.0
    assert headline(page) == "Promising: on validation the teacher is better than popularity and item-kNN."
    assert not any(finding.level == "bad" for finding in page.findings)


def test_a_teacher_that_is_never_right(small: Dataset, tmp_path: Path) -> None:
    page = examine(knowledge(small, tmp_path, right=False), small)
    assert all(rival.teacher["HR@20"] == 0.0 and rival.teacher_wins == 0.0 for rival in page.rivals)
    assert headline(page).startswith("Weak: on validation the teacher is no better than popularity and item-kNN")


def test_a_difference_that_may_be_chance_makes_no_headline(small: Dataset, tmp_path: Path) -> None:
    page = examine(knowledge(small, tmp_path, right=True), small)
    chances = (0.2, 0.01)  # of popularity and item-kNN
    rivals = [rival.model_copy(update={"p_value": chances[rival.name == "item-kNN"]}) for rival in page.rivals]
    said = headline(page.model_copy(update={"rivals": tuple(rivals)}))
    doubtful = "Doubtful: on validation the teacher beats item-kNN, but not popularity, beyond chance."
    assert said == f"{doubtful} That is about its rankings; its item vectors may help all the same."
    rivals = [rival.model_copy(update={"p_value": 0.2}) for rival in page.rivals]
    assert headline(page.model_copy(update={"rivals": tuple(rivals)})).startswith(
        "Not shown: on validation the teacher is neither better nor worse than popularity and item-kNN beyond chance"
    )
    blend = page.model_copy(update={"text_weight": 0.1})
    assert headline(blend).startswith("Promising: on validation, which chose its weights, the teacher is better than")


def test_equal_distances_are_found(small: Dataset, tmp_path: Path) -> None:
    count = sum(small.manifest.counts.values())
    page = examine(knowledge(small, tmp_path, right=True, target_distance=np.full(count, 7.0, dtype=np.float32)), small)
    assert page.weights is not None
    assert (page.weights.variation, page.weights.effective) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    assert any(finding.level == "bad" and "nearly equal" in finding.text for finding in page.findings)


def test_a_teacher_that_always_writes_the_same_is_found(small: Dataset, tmp_path: Path) -> None:
    texts = ["The"] * sum(small.manifest.counts.values())
    page = examine(knowledge(small, tmp_path, right=True, generated_text=texts), small)
    assert page.texts is not None
    assert (page.texts.titles, page.texts.commonest_share) == (0.0, 1.0)
    assert any("writes 'The' in 100%" in finding.text for finding in page.findings)


@pytest.mark.parametrize(
    ("vectors", "field", "value"),
    [(np.ones((40, 6)), "repeated", 39), (np.zeros((40, 6)), "zero", 40), (np.ones((40, 6)), "constant_columns", 6)],
)
def test_vectors_that_tell_nothing_apart_are_found(
    vectors: np.ndarray, field: str, value: int, small: Dataset, tmp_path: Path
) -> None:
    page = examine(knowledge(small, tmp_path, right=True, item_vectors=vectors), small)
    assert getattr(page.vectors, field) == value
    assert any(finding.level == "bad" and "Item vectors" in finding.text for finding in page.findings)


@pytest.mark.parametrize("train_on", ["examples", "positions", "before-cut"])
def test_training_labels_count_among_what_the_teacher_labels(train_on: TrainOn, small: Dataset, tmp_path: Path) -> None:
    known = teach(small, ReferenceTeacher(train_on=train_on), out=tmp_path / "k")
    every = len(small.training_examples(train_on))
    page = examine(known, small)
    assert page.coverage["train"] == Coverage(labelled=every, examples=every)
    assert page.weights is not None
    assert page.weights.sequences == every
    few = teach(small, ReferenceTeacher(train_on=train_on, limits=Limits(train=7)), out=tmp_path / "few")
    assert examine(few, small).coverage["train"] == Coverage(labelled=7, examples=every)


def test_who_labels_the_split_s_own_examples(small: Dataset, tmp_path: Path) -> None:
    def labels_of(*teachers: str) -> str:
        known = knowledge(small, tmp_path, right=True)
        source = {"hash": "", "model": "", "temperature": 1.0, "weight": 1.0}
        mixture = {"sources": [{**source, "teacher": teacher} for teacher in teachers], "vectors": "first"}
        settings = {**mixture, "validation_examples": 1, "calibration_error": 0.0} if len(teachers) > 1 else {}
        changes = {"teacher": "merged" if len(teachers) > 1 else teachers[0], "settings": settings}
        return labels_among(replace(known, manifest=known.manifest.model_copy(update=changes)))

    assert [labels_of(one) for one in ("bigrec", "imported", "retrieval")] == ["examples", "examples", "before-cut"]
    assert labels_of("bigrec", "imported") == "examples"
    assert labels_of("bigrec", "knn") == "before-cut"


def test_what_labelling_cost(small: Dataset, tmp_path: Path) -> None:
    known = knowledge(small, tmp_path, right=True)
    assert seconds_per_1000(known) is None
    (tmp_path / TIMING).write_text('{"examples": 50, "seconds": 10.0, "unfinished": [1, 2]}')
    assert seconds_per_1000(known) == 200.0
    assert unfinished_texts(known) == 2
    assert "200 s for 1,000 examples" in examine(known, small).findings[-1].text


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllm2rec.comparison.doctor.ENOUGH", 20)


@pytest.mark.usefixtures("few_are_enough")
def test_how_sure_a_teacher_is_and_how_often_right(small: Dataset, tmp_path: Path) -> None:
    page = examine(knowledge(small, tmp_path, right=True), small, test=True)
    found = page.calibration
    assert found is not None
    assert found.examples == small.manifest.counts["test"]
    assert found.right == 1.0
    assert found.confidence == pytest.approx(1.0, abs=0.05)  # validation says that it may be trusted
    assert found.error == pytest.approx(1 - found.confidence)
    assert any("expected calibration error" in finding.text for finding in page.findings)


@pytest.mark.usefixtures("few_are_enough")
def test_a_teacher_that_is_never_right_is_not_sure(small: Dataset, tmp_path: Path) -> None:
    found = examine(knowledge(small, tmp_path, right=False), small, test=True).calibration
    assert found is not None
    assert found.right == 0.0
    assert found.confidence < 0.1


@pytest.mark.usefixtures("few_are_enough")
def test_probabilities_of_a_teacher_are_taken_as_they_are(small: Dataset, tmp_path: Path) -> None:
    told = knowledge(small, tmp_path, right=True)
    sure = np.full_like(told.labels.distances, -np.log(0.01))
    sure[:, 0] = -np.log(0.3)
    manifest = told.manifest.model_copy(update={"teacher": "retrieval"})
    found = examine(
        replace(told, manifest=manifest, labels=replace(told.labels, distances=sure)), small, test=True
    ).calibration
    assert found is not None
    assert found.temperature is None
    assert found.confidence == pytest.approx(0.3)
    assert found.error == pytest.approx(0.7)
    assert found.bins[-1] == pytest.approx((0.3, 1.0))


@pytest.mark.usefixtures("few_are_enough")
def test_nobody_looks_at_test_unasked(small: Dataset, tmp_path: Path) -> None:
    told = knowledge(small, tmp_path, right=True)
    page = examine(told, small)
    assert {rival.split for rival in page.rivals} == {"validation"}
    assert page.calibration is None
    assert {rival.split for rival in examine(told, small, test=True).rivals} == {"validation", "test"}


def test_too_few_labels_say_nothing_of_calibration(small: Dataset, tmp_path: Path) -> None:
    assert examine(knowledge(small, tmp_path, right=True), small, test=True).calibration is None


def test_a_teacher_that_knew_the_answers_of_its_training_examples_is_found(small: Dataset, tmp_path: Path) -> None:
    found = knowledge(small, tmp_path, right=True)
    page = examine(found, small)
    assert {split: hits.share for split, hits in page.hits.items()} == {"train": 1.0, "validation": 1.0}
    assert not any("learned from what it labels" in finding.text for finding in page.findings)
    held_out = np.isin(found.labels.example_id, small.examples("validation").example_id)
    listed = found.labels.ranked_items.copy()
    listed[held_out] = (listed[held_out] + 1) % small.num_items
    seen = replace(found, labels=replace(found.labels, ranked_items=listed))
    page = examine(seen, small)
    assert {split: hits.share for split, hits in page.hits.items()} == {"train": 1.0, "validation": 0.0}
    (bad,) = (finding.text for finding in page.findings if "learned from what it labels" in finding.text)
    assert "hold 100.0% in the training examples that it labelled, and 0.0% in those of validation" in bad
    few = page.model_copy(update={"hits": {**page.hits, "validation": Hits(examples=3, share=0.0)}})
    assert not any("learned from" in finding.text for finding in diagnose(few))  # which 3 examples can't show


def test_new_items_of_validation_do_not_make_a_teacher_suspect(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = knowledge(small, tmp_path, right=True)
    validation = small.examples("validation")
    counts = small.train_counts("before-cut")
    new = validation.target[: len(validation) // 2]
    counts[new] = 0
    monkeypatch.setattr(Dataset, "train_counts", lambda *_: counts)
    unknown = np.isin(found.labels.example_id, validation.example_id[np.isin(validation.target, new)])
    listed = found.labels.ranked_items.copy()
    listed[unknown] = (listed[unknown] + 1) % small.num_items
    page = examine(replace(found, labels=replace(found.labels, ranked_items=listed)), small)
    assert page.hits["validation"].share == 1.0
    assert page.hits["validation"].examples == np.sum(~np.isin(validation.target, new))
    assert not any("learned from what it labels" in finding.text for finding in page.findings)


def test_several_rivals_share_the_error(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = iter([0.03, 0.04, 0.2, 0.01])  # popularity and item-kNN, on validation and on test
    monkeypatch.setattr(doctor, "paired_permutation_test", lambda *_, **__: next(chances))
    page = examine(knowledge(small, tmp_path, right=True), small, test=True)
    assert [rival.p_value for rival in page.rivals] == pytest.approx([0.06, 0.06, 0.2, 0.02])


def test_a_teacher_is_not_tested_against_itself(small: Dataset, tmp_path: Path) -> None:
    taught = teach(small, ReferenceTeacher(reference=ItemKNNSettings(), depth=25), out=tmp_path / "knn")
    page = examine(taught, small)
    (same,) = [rival for rival in page.rivals if not rival.differing]
    (other,) = [rival for rival in page.rivals if rival.differing]
    assert same.name == "item-kNN"
    assert same.teacher == same.rival
    assert any("no target tells it from item-kNN" in finding.text for finding in page.findings)
    assert headline(page).count("item-kNN") == 0
    assert other.name in headline(page)
    alone = headline(page.model_copy(update={"rivals": (same,)}))
    assert alone == "Not shown: on validation no target tells the teacher from item-kNN."


def test_a_teacher_leaves_out_what_the_student_beside_it_does(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = small.examples("validation")
    student = Mock(config=Mock(label="S", knowledge=None))
    student.read_ranks.return_value = reference_ranks(PopularitySettings(), small, examples, follows="ever")
    monkeypatch.setattr(doctor, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(doctor, "left_out", lambda _: "ever")
    page = examine(knowledge(small, tmp_path, right=True), small, student=student)
    counting, beside = page.rivals[0], page.rivals[-1]
    returns = examples.past.holds(examples.target[:, None]).mean() if examples.past else 0
    assert 0 < returns < 1
    assert beside.teacher["HR@20"] == pytest.approx(1 - returns)
    assert counting.teacher["HR@20"] == 1.0
    said = " ".join(finding.text for finding in page.findings)
    assert said.count("it reaches, without what users chose before, as the student ranks, HR@20") == 1


def test_the_most_trusted_tenth_carries_its_share(small: Dataset, tmp_path: Path) -> None:
    found = examine(knowledge(small, tmp_path, right=True), small).weights
    assert found is not None
    assert 0.1 < found.top_tenth < 1

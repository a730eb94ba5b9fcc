"""A budget becomes a limit, and limits become examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.settings import Settings
from dllm2rec.data import Dataset
from dllm2rec.knowledge import KnowledgeWriter
from dllm2rec.settings.parsing import validate
from dllm2rec.settings.teacher import (
    BigRecTeacher,
    EncoderTeacher,
    LabellingTeacher,
    Limits,
    ReferenceTeacher,
    RetrievalTeacher,
    TeacherChoice,
    method_of,
)
from dllm2rec.teachers.bigrec import BigRecSettings, tuning_examples
from dllm2rec.teachers.choosing import order, random
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.teachers.retrieval import RetrievalSettings, labelled_in_training
from dllm2rec.teachers.tuning import TuningSettings
from dllm2rec.workflow.budget import counted, selection, with_budget, within_reach
from dllm2rec.workflow.labelling import request
from dllm2rec.workflow.teaching import teach


class Table(Settings):
    teacher: TeacherChoice


def teacher_of(table: dict[str, Any]) -> Any:
    return validate(Table, {"teacher": table}).teacher


def chosen(dataset: Dataset, teacher: LabellingTeacher, **limits: int) -> list[int]:
    limited = teacher.model_copy(update={"limits": Limits(**limits)})
    return selection(dataset, limited)["train"].example_id.tolist()


def test_teachers_label_what_they_did_before_there_were_rules(small: Dataset) -> None:
    bigrec, reference = BigRecTeacher(seed=3), ReferenceTeacher()
    for split in ("train", "validation", "test"):
        limited = Limits(**{split: 5})
        examples = small.examples(split)
        found = selection(small, bigrec.model_copy(update={"limits": limited}))[split]
        assert found.example_id.tolist() == examples.example_id[random(examples, seed=3)[:5]].tolist()
        examples = small.training_examples("before-cut") if split == "train" else examples
        found = selection(small, reference.model_copy(update={"limits": limited}))[split]
        assert found.example_id.tolist() == examples.example_id[:5].tolist()


@pytest.mark.parametrize("rule", ["random", "oldest"])
def test_what_it_was_tuned_on_is_labelled_last(rule: str, small: Dataset) -> None:
    train = small.examples("train")
    teacher = BigRecTeacher(seed=3, choose=rule, tuning=TuningSettings(examples=len(train) // 2))
    tuned = set(tuning_examples(small, method_of(teacher, BigRecSettings), seed=3).example_id.tolist())
    assert len(tuned) == len(train) // 2
    ordered = train.example_id[order(rule, small, train, seed=3)].tolist()
    others = [one for one in ordered if one not in tuned]
    every = chosen(small, teacher)
    assert every == others + [one for one in ordered if one in tuned]
    assert others != ordered[: len(others)]
    for count in (len(others) // 2, len(others), len(others) + 5):
        assert chosen(small, teacher, train=count) == every[:count]
    limited = teacher.model_copy(update={"limits": Limits(validation=4)})  # of other splits none was tuned on
    assert len(selection(small, limited)["validation"]) == 4


@pytest.mark.parametrize("rule", ["random", "uncertain", "disagreement", "diverse", "oldest"])
@pytest.mark.parametrize("teacher", [BigRecTeacher(seed=2), ReferenceTeacher()])
def test_a_greater_budget_adds_to_a_smaller_one(rule: str, teacher: LabellingTeacher, small: Dataset) -> None:
    teacher = teacher.model_copy(update={"choose": rule})
    few, many = chosen(small, teacher, train=7), chosen(small, teacher, train=30)
    assert many[:7] == few
    assert len(set(many)) == 30


def test_a_rule_chooses_among_what_a_teacher_labels_and_leaves_other_splits_alone(small: Dataset) -> None:
    limits = Limits(train=6, validation=4, test=0)
    teacher = ReferenceTeacher(choose="uncertain", train_on="positions", limits=limits)
    found = selection(small, teacher)
    pool = small.training_examples("positions")
    expected = pool.example_id[order("uncertain", small, pool, seed=0, train_on="positions")[:6]]
    assert found["train"].example_id.tolist() == expected.tolist()
    assert found["validation"].example_id.tolist() == small.examples("validation").example_id[:4].tolist()
    assert len(found["test"]) == 0


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_limit_beyond_the_split_is_refused(split: str, small: Dataset) -> None:
    with pytest.raises(UserError, match=rf"limits\.{split}: 99999 is more than the \d+ examples to label"):
        selection(small, ReferenceTeacher(limits=Limits(**{split: 99999})))


def test_a_budget_is_a_count_or_a_share_of_what_the_teacher_labels(small: Dataset) -> None:
    reference, bigrec = ReferenceTeacher(limits=Limits(validation=3)), BigRecTeacher()
    every = len(small.training_examples("before-cut"))
    assert with_budget(small, reference, "17").limits == Limits(train=17, validation=3)
    assert with_budget(small, reference, "10%").limits.train == round(every / 10)
    assert with_budget(small, reference, "100%").limits.train == every
    assert with_budget(small, reference, "0.01%").limits.train == 1
    assert with_budget(small, bigrec, "50%").limits.train == round(len(small.examples("train")) / 2) < every / 2


def test_a_share_in_a_file_is_what_a_budget_is_on_the_command_line(small: Dataset, tmp_path: Path) -> None:
    teacher = teacher_of({"kind": "reference", "limits": {"train": "10%", "validation": 0, "test": 0}})
    every = len(small.training_examples("before-cut"))
    assert counted(small, teacher) == with_budget(small, ReferenceTeacher(limits=Limits(validation=0, test=0)), "10%")
    assert len(teach(small, teacher, out=tmp_path / "k").labels) == round(every / 10)
    for plain in (ReferenceTeacher(), BigRecTeacher(limits=Limits(train=3)), EncoderTeacher()):
        assert counted(small, plain) == plain


def test_limits_that_were_made_for_more_are_what_there_is(small: Dataset) -> None:
    every = small.manifest.counts
    asked = BigRecTeacher(limits=Limits(train=10**6, validation=3, test=10**6))
    assert within_reach(small, asked).limits == Limits(train=every["train"], validation=3, test=every["test"])
    assert within_reach(small, BigRecTeacher()) == BigRecTeacher()
    assert within_reach(small, EncoderTeacher()) == EncoderTeacher()


@pytest.mark.parametrize("share", ["0%", "101%", "x%", "10", "-1%", "1e1%"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(UserError, match=r"limits\.train.*above 0% and up to 100%"):
        teacher_of({"kind": "bigrec", "limits": {"train": share}})


def test_a_packaged_model_is_no_directory_of_its_name(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("minilm", "mine"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    described = [request(small, EncoderTeacher(model=name).model_dump(mode="json")) for name in ("minilm", "mine")]
    assert described[0]["teacher"]["model"] == "minilm"
    assert described[1]["teacher"]["model"].keys() == {"fingerprint"}


def test_who_reads_whole_users_has_a_budget_of_the_users_that_its_tuning_leaves(small: Dataset) -> None:
    teacher = teacher_of({"kind": "retrieval", "tuning": {"sequences": 4}, "limits": {"test": 3}})
    assert isinstance(teacher, RetrievalTeacher)
    train, settings = small.training_examples("before-cut"), method_of(teacher, RetrievalSettings)
    every = len(labelled_in_training(small, settings, seed=teacher.seed))
    assert 0 < every < len(train)
    assert len(np.setdiff1d(train.user, labelled_in_training(small, settings, seed=teacher.seed).user)) == 4
    assert with_budget(small, teacher, "50%").limits == Limits(train=round(every / 2), test=3)
    assert with_budget(small, teacher, str(every)).limits.train == every
    with pytest.raises(UserError, match=f"there are {every} training examples to label"):
        with_budget(small, teacher, str(every + 1))


def test_who_reads_whole_users_chooses_no_examples() -> None:
    said = (
        r"^teacher\.choose: diverse: a retrieval teacher reads whole users, so choosing single examples saves nothing"
    )
    with pytest.raises(UserError, match=said):
        teacher_of({"kind": "retrieval", "choose": "diverse"})
    teacher = teacher_of({"kind": "retrieval", "choose": "random"})
    assert teacher == RetrievalTeacher()


@pytest.mark.parametrize("bad", ["0", "-3", "99999", "many", "", "1.5", "0%", "-1%", "100.1%", "1e2%", "%", "9" * 5000])
def test_a_budget_that_is_none_is_one_line(bad: str, small: Dataset) -> None:
    every = len(small.training_examples("before-cut"))
    with pytest.raises(UserError) as caught:
        with_budget(small, ReferenceTeacher(), bad)
    assert str(caught.value) == (
        f"--budget {bad}: there are {every} training examples to label; give a count from 1 to {every}, or a share "
        "above 0% and up to 100%"
    )


def test_an_unknown_rule_is_told_the_nearest(small: Dataset) -> None:
    with pytest.raises(UserError, match=r"^choose: unknown rule 'uncertian' \(did you mean 'uncertain'\?\)$"):
        validate(BigRecTeacher, {"choose": "uncertian"})
    with pytest.raises(UserError, match=r"^teacher\.choose: unknown rule 3 \(known: disagreement, diverse, oldest, "):
        teacher_of({"kind": "reference", "choose": 3})


def test_settings_of_a_file_choose(small: Dataset) -> None:
    teacher = teacher_of({"kind": "bigrec", "choose": "disagreement", "limits": {"train": 4}})
    assert isinstance(teacher, BigRecTeacher)
    assert (teacher.choose, teacher.limits.train) == ("disagreement", 4)


def test_labels_of_another_rule_are_added_and_are_the_same(small: Dataset, tmp_path: Path) -> None:
    limits = Limits(train=20, validation=0, test=0)
    first, second = (ReferenceTeacher(choose=rule, limits=limits) for rule in ("random", "uncertain"))
    teach(small, first, out=tmp_path / "k")
    both = teach(small, second, out=tmp_path / "k")
    ids = set(chosen(small, first, train=20)) | set(chosen(small, second, train=20))
    assert set(both.labels.example_id.tolist()) == ids
    whole = teach(small, ReferenceTeacher(), out=tmp_path / "whole").labels
    np.testing.assert_array_equal(
        both.labels.ranked_items, whole.ranked_items[np.isin(whole.example_id, both.labels.example_id)]
    )


def test_a_choice_reads_vectors_that_are_named(small: Dataset, tmp_path: Path) -> None:
    limits = Limits(train=9, validation=0, test=0)
    vectors = np.random.default_rng(0).normal(size=(small.num_items, 4)).astype(np.float32)
    plain = teach(small, ReferenceTeacher(limits=limits), out=tmp_path / "plain")
    manifest = plain.manifest.model_copy(update={"vector_size": 4})
    KnowledgeWriter(tmp_path / "vectors", manifest).write_item_vectors(vectors)
    teacher = ReferenceTeacher(choose="diverse", limits=limits, vectors=tmp_path / "vectors")
    knowledge = teach(small, teacher, out=tmp_path / "k")
    pool = small.training_examples("before-cut")
    rows = order("diverse", small, pool, seed=0, train_on="before-cut", item_vectors=vectors)[:9]
    assert sorted(knowledge.labels.example_id.tolist()) == sorted(pool.example_id[rows].tolist())
    assert knowledge.item_vectors is None  # item-kNN has none, whoever chose
    with pytest.raises(UserError, match="plain: has no item vectors; name knowledge that"):
        teach(small, teacher.model_copy(update={"vectors": tmp_path / "plain"}), out=tmp_path / "k2")
    blend = ReferenceTeacher(reference=BlendSettings(), limits=limits, vectors=tmp_path / "vectors")
    assert teach(small, blend, out=tmp_path / "blend").item_vectors is not None

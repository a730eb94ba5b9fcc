"""Tables from ranks that are known: means, spreads, tests, restrictions to labelled examples."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from comparison_helpers import evidence, group, teacher
from rich.console import Console

from dllm2rec.cli.tables import comparison_text
from dllm2rec.comparison.comparing import tabulate
from dllm2rec.comparison.evidence import Group, distinct, judge_teacher, left_out
from dllm2rec.comparison.formatting import header, markdown, piped, table_rows
from dllm2rec.comparison.pairing import plain_of
from dllm2rec.core.figures import figure, p_text, percent
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset
from dllm2rec.evaluation.significance import paired_permutation_test
from dllm2rec.reporting.report.cases import user_cards
from dllm2rec.settings.config import TrainSettings
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import ItemKNNSettings
from dllm2rec.workflow.runs import Run


def test_means_and_spreads_over_seeds_by_hand(small: Dataset) -> None:
    count = len(small.examples("test"))
    hits, misses = np.ones(count), np.full(count, 50.0)
    half = np.where(np.arange(count) % 2, hits, misses)
    rows = tabulate(evidence(small, group(small, "S", [hits, half]))).tables[0].rows
    row = rows[1]
    share = half.tolist().count(1.0) / count
    assert row.metrics["HR@20"] == pytest.approx((1 + share) / 2)
    assert row.spread["HR@20"] == pytest.approx(abs(1 - share) / np.sqrt(2))  # n - 1 = 1
    assert rows[0].metrics["NDCG@20"] == pytest.approx(0.5)  # rank 3
    assert rows[0].spread == {}
    assert row.versus is None


def test_a_student_of_another_protocol_is_not_the_plain_one(small: Dataset) -> None:
    count = len(small.examples("test"))
    hits, misses = np.ones(count), np.full(count, 50.0)
    paper, taught = group(small, "S", [misses]), group(small, "S", [hits], taught=True, protocol="strong")
    strong = group(small, "S", [misses], protocol="strong")
    alone = tabulate(evidence(small, paper, taught))
    assert alone.tables[0].rows[-1].versus is None
    assert alone.verdict.headline.startswith("There is no plain student of the same kind")
    assert any(line.startswith("Not tested, as no plain student") for line in alone.verdict.lines)
    beside = tabulate(evidence(small, paper, strong, taught))
    versus = beside.tables[0].rows[-1].versus
    assert versus is not None
    assert versus.plain
    assert not any(line.startswith("Not tested") for line in beside.verdict.lines)


def test_slices_by_how_often_training_saw_the_target(small: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = small.train_counts()
    counts[small.examples("test").target[:3]] = 0
    monkeypatch.setattr(Dataset, "train_counts", lambda *_: counts)
    seen = counts[small.examples("test").target]
    count = len(seen)
    half = np.where(np.arange(count) % 2, 1.0, 50.0)
    given = evidence(small, group(small, "S", [half, np.ones(count)]), teachers=(teacher(small, count - 2),))
    whole, part = tabulate(given).tables
    reference, student = whole.rows
    assert reference.slices["unseen in training"] == 1.0  # rank 3
    hits = (1 + (half == 1.0)) / 2
    assert student.slices["unseen in training"] == pytest.approx(hits[seen == 0].mean())
    sizes = {one.name: int(one.rows.sum()) for one in given.slices}
    assert sum(student.slices[name] * size for name, size in sizes.items()) == pytest.approx(hits.sum())
    assert part.rows[1].label == "teacher oracle"
    assert set(part.rows[1].slices.values()) == {1.0}
    assert part.rows[2].slices["unseen in training"] == pytest.approx(hits[: count - 2][seen[: count - 2] == 0].mean())
    assert f"{sizes['unseen in training']} of {count} targets occur in none of these" in " ".join(whole.notes)
    assert header(whole)[3:5] == ("valid.", "unseen")
    rows = [row.model_copy(update={"slices": {"unseen in training": 0.0}}) for row in whole.rows]
    assert "unseen" not in header(whole.model_copy(update={"rows": tuple(rows)}))
    assert table_rows(whole)[1][4] == f"{student.slices['unseen in training']:.4f}".removeprefix("0")


def test_a_taught_student_is_tested_against_the_plain_one_of_its_name(small: Dataset) -> None:
    count = len(small.examples("test"))
    generator = np.random.default_rng(0)
    plain, taught = generator.integers(1, 40, count).astype(float), generator.integers(1, 20, count).astype(float)
    other = np.full(count, 2.0)
    comparison = tabulate(
        evidence(
            small,
            group(small, "other", [other]),
            group(small, "S", [plain]),
            group(small, "S", [taught], taught=True),
            group(small, "other", [other], taught=True),
        )
    )
    versus = {row.label: row.versus for row in comparison.tables[0].rows}
    assert versus["S plain"] is None
    found = versus["S + taught"]
    assert found is not None
    assert found.baseline == "S plain"
    own, before = np.where(taught <= 20, 1 / np.log2(taught + 1), 0), np.where(plain <= 20, 1 / np.log2(plain + 1), 0)
    assert found.difference == pytest.approx(own.mean() - before.mean())
    assert found.gain == pytest.approx(own.mean() / before.mean() - 1)
    raw = paired_permutation_test(
        own, before, user=small.examples("test").user, generator=numpy_generator(0, "permutation", "S + taught")
    )
    assert found.p_value == pytest.approx(min(1, 2 * raw))  # Holm over two: the smaller of the two is doubled
    assert found.interval[0] < found.difference < found.interval[1]
    hits, hits_before = (taught <= 20).astype(float), (plain <= 20).astype(float)
    assert found.hits_gain == pytest.approx(hits.mean() / hits_before.mean() - 1)
    again = numpy_generator(0, "permutation", "S + taught")
    paired_permutation_test(own, before, user=small.examples("test").user, generator=again)
    raw = paired_permutation_test(hits, hits_before, user=small.examples("test").user, generator=again)
    assert found.hits_p_value == pytest.approx(min(1, 2 * raw))
    line = next(line for line in comparison.verdict.lines if line.startswith("S + taught"))
    assert line.endswith(f"HR@20 {percent(found.hits_gain)} ({p_text(found.hits_p_value)}).")
    same = versus["other + taught"]
    assert same is not None
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_of_several_plain_students_the_one_that_validation_prefers_stands_beside_a_taught_one(small: Dataset) -> None:
    """Of equals it is the one that differs least."""
    rank = np.full(len(small.examples("test")), 2.0)
    far, near = (replace(group(small, "S", [rank], dim=dim), label=f"S of {dim}") for dim in (32, 64))
    taught = group(small, "S", [rank], taught=True)
    for better, first, second in (
        (near, near, far),
        (replace(far, validation=0.9), replace(far, validation=0.9), near),
    ):
        others = [better, near if first.label == far.label else far]
        assert plain_of(taught, [*others, taught]) == [first, second]
        given = evidence(small, *others, taught)
        page = user_cards(given)
        assert first.label in page
        assert second.label not in page
        table = tabulate(given).tables[0]
        assert [row.versus.baseline for row in table.rows if row.versus] == [first.label]
        assert any("student.dim (64, 32)" in note for note in table.notes) == (first.label == far.label)


def test_names_have_room_in_a_narrow_terminal(small: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = np.where(np.arange(len(small.examples("test"))) % 2, 1.0, 50.0)
    counts = small.train_counts()
    counts[small.examples("test").target[:3]] = 0
    monkeypatch.setattr(Dataset, "train_counts", lambda *_: counts)
    comparison = tabulate(evidence(small, group(small, "transformer", [rank, rank * 2])))
    for width, timed in ((80, False), (120, True)):
        monkeypatch.setenv("COLUMNS", str(width))
        console = Console(width=width, file=StringIO(), color_system=None)
        console.print(*comparison_text(comparison)[:1])
        told = console.file.getvalue()  # type: ignore[attr-defined]
        assert "transformer" in told
        assert "unseen" in told
        assert ("s/1k" in told) == timed


def test_a_bar_in_a_name_does_not_part_a_row() -> None:
    assert piped(["a|b", "c"]) == r"| a\|b | c |"


def test_validation_chooses_what_test_then_tells_of(small: Dataset) -> None:
    count = len(small.examples("test"))
    good, bad = np.ones(count), np.full(count, 30.0)
    lucky = group(small, "lucky", [good], validation=0.4)
    chosen = group(small, "chosen", [bad], validation=0.6)
    found = tabulate(evidence(small, lucky, chosen, teachers=(teacher(small, 3),)))
    whole, part = found.tables
    assert whole.over_reference is not None
    assert whole.over_reference.gain == -1.0
    assert (
        "The best on validation: chosen plain reaches .0000 (validation .6000) and the baseline popularity .5000 "
        "(validation .5000) (-100.0%" in found.verdict.lines[-2]
    )
    assert "validation and test disagree, and the baseline is simpler" in found.verdict.lines[-2]
    assert [row[3] for row in table_rows(whole)] == [".5000", ".4000", ".6000"]
    assert "valid." not in header(part)
    assert part.teacher_over is not None
    assert part.teacher_over.baseline == "chosen plain"


def test_the_best_student_is_tested_against_the_best_reference(small: Dataset) -> None:
    count = len(small.examples("test"))
    good, bad = np.where(np.arange(count) % 3, 1.0, 2.0), np.full(count, 9.0)
    comparison = tabulate(evidence(small, group(small, "bad", [bad]), group(small, "good", [good, good])))
    found = comparison.tables[0].over_reference
    assert found is not None
    assert found.baseline == "popularity"
    own, counted = 1 / np.log2(good + 1), np.full(count, 0.5)  # rank 3 of the reference
    assert found.gain == pytest.approx(own.mean() / 0.5 - 1)
    raw = paired_permutation_test(
        own, counted, user=small.examples("test").user, generator=numpy_generator(0, "permutation", "popularity")
    )
    assert found.p_value == pytest.approx(raw)
    assert any("the baseline popularity" in line and "p <" in line for line in comparison.verdict.lines)


def test_runs_of_different_versions_are_told_of(small: Dataset) -> None:
    ranks = [np.full(len(small.examples("test")), 2.0)] * 2
    now = group(small, "one", ranks)
    config = now.runs[0].config
    old = config.model_copy(update={"revision": config.revision - 1, "software": config.software | {"torch": "2.0"}})
    mixed = replace(now, runs=(replace(now.runs[0], config=old), now.runs[1]))
    told = [note for note in tabulate(evidence(small, mixed)).tables[0].notes if "different versions" in note]
    torch = config.software["torch"]
    before, after = config.revision - 1, config.revision
    assert told == [
        f"Runs were made by different versions of torch (2.0, {torch}) and dllm2rec's training ({before}, {after}); "
        "retrain what you compare."
    ]
    assert not any("different versions" in note for note in tabulate(evidence(small, now)).tables[0].notes)


@pytest.mark.parametrize(("plain", "taught", "several"), [(3, 3, True), (1, 3, False), (3, 1, False)])
def test_a_verdict_over_several_seeds_has_several_on_both_sides(
    plain: int, taught: int, several: bool, small: Dataset
) -> None:
    count = len(small.examples("test"))
    groups = [
        group(small, "one", [np.full(count, 9.0)] * plain),
        group(small, "one", [np.where(np.arange(count) % 3, 1.0, 2.0)] * taught, taught=True),
    ]
    table = tabulate(evidence(small, *groups)).tables[0]
    (versus,) = [row.versus for row in table.rows if row.versus is not None]
    assert versus.several_seeds is several
    assert table.over_reference is not None
    assert table.over_reference.several_seeds is (taught > 1)  # a reference has no seeds


def test_where_nothing_is_taught_the_others_are_tested_against_the_first(small: Dataset) -> None:
    count = len(small.examples("test"))
    rows = (
        tabulate(evidence(small, group(small, "A", [np.ones(count)]), group(small, "B", [np.full(count, 30.0)])))
        .tables[0]
        .rows
    )
    assert rows[1].versus is None
    assert rows[2].versus is not None
    assert rows[2].versus.baseline == "A plain"
    assert rows[2].versus.gain == -1.0


def test_a_teacher_of_some_examples_has_a_table_on_these_examples(small: Dataset) -> None:
    count = len(small.examples("test"))
    rank = np.where(np.arange(count) < 3, 1.0, 50.0)
    tables = tabulate(evidence(small, group(small, "S", [rank]), teachers=(teacher(small, 3),))).tables
    assert [table.examples for table in tables] == [count, 3]
    assert "Split: paper, test part." in tables[0].notes
    assert [note[:23] for note in tables[1].notes] == ["Made as the table above"]
    assert [row.kind for row in tables[0].rows] == ["reference", "student"]
    by_kind = {row.kind: row for row in tables[1].rows}
    assert by_kind["teacher"].metrics["HR@20"] == 1.0
    assert by_kind["student"].metrics["HR@20"] == 1.0
    assert tables[0].rows[1].metrics["HR@20"] == pytest.approx(3 / count)
    over = tables[1].teacher_over
    assert over is not None
    assert (over.baseline, over.difference) == ("S plain", 0.0)
    assert tables[0].teacher_over is None


def test_a_teacher_of_all_examples_stands_in_the_one_table(small: Dataset) -> None:
    count = len(small.examples("test"))
    given = evidence(small, group(small, "S", [np.ones(count)]), teachers=(teacher(small, count),))
    (table,) = tabulate(given).tables
    assert [row.kind for row in table.rows] == ["reference", "teacher", "student"]


def test_a_mild_weight_leaves_nothing_out() -> None:
    def run(again: float, *, ever: bool) -> Any:
        return Mock(result=Mock(fit=Mock(again=again, ever=ever)))

    assert left_out([run(0.0, ever=False), run(-4.0, ever=True)]) == "nothing"
    assert left_out([run(-93.0, ever=False)]) == "history"
    assert left_out([run(-93.0, ever=False), run(-1e4, ever=True)]) == "ever"


def test_a_teacher_is_shown_and_tested_without_what_the_student_leaves_out(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Group, "left_out", "ever")
    examples = small.examples("test")
    some = examples.take(np.arange(len(examples)) > 0)
    knowledge = label_with_reference(small, ItemKNNSettings(), examples=some, out=tmp_path / "k", depth=small.num_items)
    taught = judge_teacher(knowledge, small, examples)
    assert taught is not None
    rank = np.full(len(examples), 5.0)
    found = tabulate(evidence(small, group(small, "S", [rank]), teachers=(taught,)))
    part = found.tables[1]
    shown = {row.label: row.metrics["NDCG@20"] for row in part.rows if row.kind == "teacher"}
    assert list(shown) == ["teacher knn", "teacher knn, all chosen left out"]
    assert shown["teacher knn"] != shown["teacher knn, all chosen left out"]
    assert part.teacher_over is not None
    own = shown["teacher knn, all chosen left out"]
    assert part.teacher_over.difference == pytest.approx(own - 1 / np.log2(6))
    assert f"it reaches, without what the student leaves out, {figure(own)} and" in found.verdict.lines[-1]


def test_every_table_says_how_it_was_made_and_all_forms_say_the_same(small: Dataset) -> None:
    count = len(small.examples("test"))
    given = evidence(
        small, group(small, "S", [np.ones(count)] * 2), group(small, "S", [np.full(count, 2.0)] * 2, taught=True)
    )
    (table,) = tabulate(given).tables
    notes = " ".join(table.notes)
    for words in (
        "Split: paper, test part",
        "taught = dllm2rec (paper)",
        "Seeds: 1, 2",
        "validation NDCG@20 only",
        "ties take the mean rank",
        "Baselines without training (popularity) count",
        "Holm correction over 1",
        "No teacher labelled test examples",
    ):
        assert words in notes, words
    text = markdown(table)
    for row in table_rows(table):
        assert all(cell in text for cell in row)
    assert "1.0000±.0000" in text
    assert all(f"- {note}" in text.splitlines() for note in table.notes)


def test_what_is_true_of_several_rows_is_said_once(small: Dataset) -> None:
    rank = [np.ones(len(small.examples("test")))]
    given = evidence(
        small,
        group(small, "A", rank),
        group(small, "A", rank, taught=True, dim=32),
        group(small, "B", rank),
        group(small, "B", rank, taught=True, dim=32),
        group(small, "C", rank * 2, protocol="strong"),
    )
    notes = tabulate(given).tables[0].notes
    learn = next(note for note in notes if note.startswith("Students learn from"))
    assert learn.startswith("Students learn from: the split's examples (A, B); every event before the cut (C). ")
    assert "Seeds: 1 (A, B); 1, 2 (C); mean ± standard deviation over seeds." in notes
    assert [note for note in notes if "also differ in student" in note] == [
        "A + taught and A plain; B + taught and B plain also differ in student.dim (32, 64), student.output (tied, "
        "separate)."
    ]


def test_whatever_differs_beside_the_teacher_is_told(small: Dataset) -> None:
    rank = [np.ones(len(small.examples("test")))]
    settings = {
        "protocol": "paper",
        "student": {"kind": "sasrec", "blocks": 3},
        "loss": {"kind": "bce", "negatives": 5},
    }
    cell = TrainSettings.model_validate({**settings, "method": {"kind": "vectors"}})
    plain, taught = group(small, "S", rank), group(small, "S", rank, taught=True)
    other = taught.runs[0].config.model_copy(update={"settings": cell})
    taught = replace(taught, runs=(Run(taught.runs[0].path, other),))
    notes = tabulate(evidence(small, plain, taught)).tables[0].notes
    assert any("student.blocks (3, 1)" in note and "loss.negatives (5, 1)" in note for note in notes)


def test_labels_that_several_have_say_as_much_of_the_path_as_tells_them_apart() -> None:
    paths = [Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/run"), Path("/c/plain")]
    found = distinct([("s", paths[0]), ("s", paths[1]), ("s", paths[2]), ("t", paths[3])])
    assert found == ["s [a/x/run]", "s [b/x/run]", "s [y/run]", "t"]

"""The answer in plain words must follow the figures."""

from typing import Literal

import pytest

from dllm2rec.comparison.results import Row, Table, Versus
from dllm2rec.comparison.verdict import judge
from dllm2rec.core.figures import figure, p_text, percent
from dllm2rec.data import TrainOn


def student(
    label: str,
    ndcg: float,
    *,
    difference: float | None = None,
    p_value: float = 1.0,
    plain: bool = True,
    several_seeds: bool = True,
) -> Row:
    versus = None
    if difference is not None:
        before = ndcg - difference
        versus = Versus(
            baseline="plain",
            difference=difference,
            interval=(difference - 0.001, difference + 0.001),
            gain=difference / before if before else None,
            p_value=p_value,
            hits_gain=0.5,
            hits_p_value=p_value,
            plain=plain,
            several_seeds=several_seeds,
        )
    return Row(
        label=label,
        kind="student",
        student=label,
        method="x",
        distilled=difference is not None,
        metrics={"HR@20": 2 * ndcg, "NDCG@20": ndcg},
        versus=versus,
    )


def other(label: str, kind: Literal["reference", "teacher"], ndcg: float) -> Row:
    return Row(label=label, kind=kind, metrics={"HR@20": 2 * ndcg, "NDCG@20": ndcg})


def table(*rows: Row, examples: int = 100) -> Table:
    return Table(title="t", examples=examples, rows=rows, notes=())


@pytest.mark.parametrize(
    ("rows", "outcome", "start"),
    [
        ([student("S", 0.01)], "none", "No student here was taught"),
        (
            [student("S", 0.01).model_copy(update={"distilled": True})],
            "none",
            "There is no plain student of the same kind to compare with",
        ),
        (
            [
                student("plain", 0.01),
                student("A", 0.03, difference=0.01, p_value=0.01, plain=False),
            ],
            "none",
            "There is no plain student of the same kind to compare with",
        ),
        (
            [student("A", 0.03, difference=0.01, p_value=0.01)],
            "helped",
            "Yes, the teacher helped: A is better than plain",
        ),
        (
            [student("A", 0.03, difference=0.01, p_value=0.01, several_seeds=False)],
            "unclear",
            "With one seed, A is better than plain",
        ),
        (
            [student("A", 0.03, difference=-0.01, p_value=0.01, several_seeds=False)],
            "unclear",
            "With one seed, A is worse than plain",
        ),
        (
            [student("A", 0.03, difference=-0.01, p_value=0.01)],
            "harmed",
            "No, the teacher harmed: A is worse than plain",
        ),
        ([student("A", 0.03, difference=0.01, p_value=0.05)], "unclear", "Not shown"),
        (
            [student("A", 0.03, difference=0.01, p_value=0.01), student("B", 0.03, difference=0.01, p_value=0.9)],
            "helped",
            "In part, the teacher helped: A is better",
        ),
        (
            [student("A", 0.03, difference=0.01, p_value=0.01), student("B", 0.03, difference=-0.01, p_value=0.01)],
            "unclear",
            "Mixed: A is better than plain, B is worse",
        ),
        (
            [
                student("A", 0.03, difference=0.01, p_value=0.01, several_seeds=False),
                student("B", 0.03, difference=0.01, p_value=0.01),
            ],
            "helped",
            "In part, the teacher helped: B is better than plain. With one seed, which shows less, A is better.",
        ),
        (
            [
                student("A", 0.03, difference=-0.01, p_value=0.01, several_seeds=False),
                student("B", 0.03, difference=0.01, p_value=0.9),
            ],
            "unclear",
            "With one seed, A is worse than plain",
        ),
    ],
)
def test_outcome_and_headline(rows: list[Row], outcome: str, start: str) -> None:
    verdict = judge([table(*rows)])
    assert verdict.outcome == outcome
    assert verdict.headline.startswith(start)


def test_taught_line_states_both_figures_gain_and_certainty() -> None:
    line = judge([table(student("A", 0.03, difference=0.01, p_value=0.012))]).lines[0]
    assert ".0300 against .0200 of plain, +50.0%" in line
    assert "significant, p = .012" in line
    assert "+0.0090 and +0.0110" in line


def test_counting_that_wins_is_named() -> None:
    verdict = judge([table(other("item-kNN", "reference", 0.05), student("S", 0.04))])
    assert any("item-kNN" in line and "deploy the baseline (`dllm2rec export DATASET" in line for line in verdict.lines)
    verdict = judge([table(other("item-kNN", "reference", 0.03), student("S", 0.04))])
    assert verdict.lines[-1].endswith("; deploy S.")


@pytest.mark.parametrize(
    ("learned", "p_value", "says"),
    [
        ((0.04, 0.06), 0.01, "; deploy S."),
        ((0.04, 0.06), 0.20, "the difference may be chance, and the baseline is simpler: deploy the baseline"),
        ((0.02, 0.06), 0.01, "validation and test disagree, and the baseline is simpler: deploy the baseline"),
        ((0.04, 0.02), 0.01, "validation and test disagree, and the baseline is simpler: deploy the baseline"),
        ((0.02, 0.02), 0.01, "on this data: deploy the baseline"),
    ],
)
def test_what_to_ship_is_chosen_on_validation_and_proven_on_test(
    learned: tuple[float, float], p_value: float, says: str
) -> None:
    own = student("S", learned[0], difference=0.01, p_value=p_value).model_copy(update={"validation": learned[1]})
    counted = other("item-kNN", "reference", 0.03).model_copy(update={"validation": 0.05})
    worse = student("T", 0.9).model_copy(update={"validation": 0.01})
    rows = table(counted, own, worse).model_copy(update={"over_reference": own.versus})
    assert says in judge([rows]).lines[-1]


def test_where_nothing_is_hit_nothing_is_said() -> None:
    lines = judge([table(other("popularity", "reference", 0.0), student("S", 0.0))]).lines
    assert lines == ("No student and no baseline hits any target here: these examples can't say what to deploy.",)


@pytest.mark.parametrize(("p_value", "says"), [(0.001, "on this data: deploy"), (0.4, "the difference may be chance")])
def test_a_loss_to_counting_tells_how_sure_it_is(p_value: float, says: str) -> None:
    own = student("S", 0.04, difference=-0.01, p_value=p_value)
    rows = table(other("item-kNN", "reference", 0.05), own).model_copy(update={"over_reference": own.versus})
    line = judge([rows]).lines[-1]
    assert says in line
    assert p_text(p_value) in line


def test_what_cannot_be_exported_gives_way_to_what_can() -> None:
    rows = [other("EASE", "reference", 0.05), other("item-kNN, demand", "reference", 0.03), student("S", 0.04)]
    line = judge([table(*rows)]).lines[-1]
    assert "EASE can't be exported, item-kNN, demand can, at .0300 (`dllm2rec export DATASET --out BUNDLE`)" in line
    rows = [other("popularity", "reference", 0.05), student("S", 0.04)]
    assert "export" not in judge([table(*rows)]).lines[-1]


@pytest.mark.parametrize(
    ("name", "counted", "says"),
    [
        ("item-kNN, demand", "before-cut", ""),
        ("item-kNN", "before-cut", ", which also uses demand weights"),
        ("item-kNN, demand", "positions", ", which also counts every event before the cut"),
        ("item-kNN", "examples", ", which also uses demand weights and counts every event before the cut"),
    ],
)
def test_what_a_bundle_of_counting_does_beyond_the_row_is_told(name: str, counted: TrainOn, says: str) -> None:
    line = judge([table(other(name, "reference", 0.05), student("S", 0.04))], counted=counted).lines[-1]
    assert line.endswith(f"deploy the baseline (`dllm2rec export DATASET --out BUNDLE`{says}).")


@pytest.mark.parametrize("several_seeds", [True, False])
def test_a_win_over_counting_tells_of_one_seed(several_seeds: bool) -> None:
    own = student("S", 0.04, difference=0.01, p_value=0.001, several_seeds=several_seeds)
    rows = table(other("item-kNN", "reference", 0.03), own).model_copy(update={"over_reference": own.versus})
    line = judge([rows]).lines[-1]
    assert "significant, p = .001" in line
    assert ("one seed" in line) != several_seeds


def test_a_teacher_worse_than_its_student_is_named() -> None:
    labelled = table(other("bigrec", "teacher", 0.01), student("S", 0.04), examples=50)
    for p_value, words in (
        (0.01, "the teacher is worse than this student (p = .010)"),
        (0.2, "neither is significantly better"),
    ):
        over = Versus(
            baseline="S",
            difference=-0.03,
            interval=(-0.05, 0.01),
            gain=-0.75,
            p_value=p_value,
            hits_gain=-0.5,
            hits_p_value=p_value,
        )
        verdict = judge([table(student("S", 0.04)), labelled.model_copy(update={"teacher_over": over})])
        assert any("50 examples" in line and "S, .0400" in line and words in line for line in verdict.lines)


def test_on_validation_a_headline_is_a_hint() -> None:
    rows = [student("S", 0.03, difference=0.01, p_value=0.01)]
    assert judge([table(*rows)]).headline == "Yes, the teacher helped: S is better than plain."
    assert judge([table(*rows)], split="validation").headline == (
        "On validation, which was used for selection, so optimistic: yes, the teacher helped: S is better than plain."
    )


def test_figures_as_the_paper_writes_them() -> None:
    assert [figure(0.0123), figure(0.0), figure(1.0)] == [".0123", ".0000", "1.0000"]
    assert [p_text(0.0001), p_text(0.0123), p_text(1.0)] == ["p < .001", "p = .012", "p = 1.000"]
    assert [percent(0.123), percent(-0.5), percent(None)] == ["+12.3%", "-50.0%", "from zero"]

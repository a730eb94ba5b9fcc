"""What labels and single teachers add: which rows are tested, and what is said of them."""

import numpy as np
import pytest
from comparison_helpers import evidence, group, mixture

from dllm2rec.comparison.comparing import tabulate
from dllm2rec.comparison.evidence import Group
from dllm2rec.comparison.formatting import header
from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.distillation.kar import KARSettings
from dllm2rec.distillation.methods import MethodSettings, VectorsMethod
from dllm2rec.distillation.rd import RDSettings
from dllm2rec.distillation.settings import DLLM2RecSettings


def test_what_labels_add_to_item_vectors_is_told_or_how_to_know_it(small: Dataset) -> None:
    count = len(small.examples("test"))
    plain = group(small, "one", [np.full(count, 9.0)])
    taught = group(small, "one", [np.full(count, 2.0)], taught=True, knowledge="ours")
    another = group(small, "one", [np.full(count, 1.0)], by=VectorsMethod(), knowledge="another")
    for groups in ([plain, taught], [plain, another, taught]):
        lines = tabulate(evidence(small, *groups)).verdict.lines
        (said,) = [line for line in lines if "item vectors" in line]
        assert said.startswith("one + taught also reads the teacher's item vectors, and plain students do not")
    several = [group(small, name, [np.full(count, 2.0)], taught=True, knowledge="ours") for name in ("one", "two")]
    lines = tabulate(evidence(small, plain, *several)).verdict.lines
    assert any(line.startswith("Taught students also read the teacher's item vectors") for line in lines)
    vectors = group(small, "one", [np.full(count, 1.0)], by=VectorsMethod(), knowledge="ours")
    lines = tabulate(evidence(small, plain, vectors, taught)).verdict.lines
    (said,) = [line for line in lines if "item vectors" in line]
    gain = 100 * (1 / np.log2(3) - 1)
    assert said.startswith("What labels add to item vectors: one + taught against one + vectors, which reads the same")
    assert f"{gain:+.1f}%" in said
    assert said.endswith("not Holm-corrected).")
    small_one = group(small, "one", [np.full(count, 1.0)], by=VectorsMethod(), knowledge="ours", dim=32)
    lines = tabulate(evidence(small, plain, small_one, taught)).verdict.lines
    (said,) = [line for line in lines if line.startswith("What labels add")]
    assert said.endswith("not Holm-corrected); they also differ in student.dim (64, 32).")
    by_hand = group(small, "another", [np.full(count, 4.0)], by=VectorsMethod(), knowledge="ours")
    lines = tabulate(evidence(small, plain, small_one, by_hand, taught)).verdict.lines
    (said,) = [line for line in lines if line.startswith("What labels add to item vectors: one + taught")]
    assert "against another + vectors" in said  # whose settings are the same
    for method in (DLLM2RecSettings(embedding=False), KARSettings()):  # rankings without vectors, texts without labels
        some = group(small, "one", [np.full(count, 2.0)], taught=True, by=method)
        assert not any("item vectors" in line for line in tabulate(evidence(small, plain, some)).verdict.lines)


def test_what_one_of_several_teachers_adds_is_told_or_how_to_know_it(small: Dataset) -> None:
    count = len(small.examples("test"))

    def taught(student: str, rank: float, knowledge: str, **more: MethodSettings) -> Group:
        return group(small, student, [np.full(count, rank)], taught=True, knowledge=knowledge, **more)

    def said(*groups: Group) -> list[str]:
        mixtures = {
            "both": mixture("llm", "blend"),
            "all three": mixture("llm", "blend", "ease"),
            "both and ease": mixture("both", "ease"),
        }
        lines = tabulate(evidence(small, *groups, mixtures=mixtures)).verdict.lines
        return [line for line in lines if " adds to " in line or "several teachers" in line]

    plain, both = group(small, "one", [np.full(count, 9.0)]), taught("one", 2.0, "both")
    parts = [taught("one", 5.0, "llm"), taught("one", 3.0, "blend")]
    gain = 100 * (np.log2(4) / np.log2(3) - 1)
    (line,) = said(plain, *parts, both)  # of the parts the better one
    assert line.startswith(f"What llm adds to blend: one + taught against one + taught, {gain:+.1f}% (p ")
    for more in ("all three", "both and ease"):  # merged at once, or what was merged merged with another
        line, _ = said(plain, both, taught("one", 1.0, more))
        assert line.startswith("What ease adds to llm and blend: ")
    assert said(plain, taught("one", 2.0, "both", by=VectorsMethod())) == []  # it learns from no labels
    others = [taught("two", 3.0, "blend"), taught("one", 3.0, "blend", by=VectorsMethod()), taught("one", 3.0, "ease")]
    for unlike in ([], others):  # another student, another method, another teacher
        (line,) = said(plain, *unlike, both)
        assert line.startswith("one + taught learns from several teachers as one (llm and blend): the same student, ")
    (line,) = said(both, taught("two", 1.0, "both"))
    assert line.startswith("one + taught and two + taught learn from several teachers as one (llm and blend): ")
    assert said(plain, *parts) == []


def test_methods_are_tested_against_one_of_them_student_by_student(small: Dataset) -> None:
    count = len(small.examples("test"))
    good, bad = np.ones(count), np.full(count, 50.0)
    given = evidence(
        small,
        group(small, "A", [bad]),
        group(small, "A", [bad, bad], taught=True),
        group(small, "A", [good, good], by=RDSettings(), knowledge="k"),
        group(small, "B", [good], by=RDSettings(), knowledge="k"),
        group(small, "B", [bad], taught=True),
        group(small, "T", [bad], by=RDSettings(), protocol="strong", knowledge="k"),
    )
    comparison = tabulate(given, against="taught")
    table, verdict = comparison.tables[0], comparison.verdict
    assert {row.label: row.versus.baseline for row in table.rows if row.versus} == {
        "A plain": "A + taught",
        "A + rd": "A + taught",
        "B + rd": "B + taught",
    }
    assert "vs taught" in header(table)
    assert "against the student of taught of the same name" in " ".join(table.notes)
    assert "Holm correction over 3" in " ".join(table.notes)
    assert verdict.outcome == "none"
    assert verdict.headline == (
        "Against taught, A + rd and B + rd are better. Some have one seed: seeds differ, too, so their differences "
        "show less."
    )
    assert any(
        line.startswith("Not tested, as no student of taught here") and "T + rd" in line for line in verdict.lines
    )
    with pytest.raises(
        UserError, match="no run here is of the method 'DCD' to test against; there are plain, taught and rd"
    ):
        tabulate(given, against="DCD")

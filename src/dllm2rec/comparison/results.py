"""What a comparison found: rows, tables, and the answer in plain words."""

from typing import Literal

from pydantic import Field

from dllm2rec.core.settings import Settings
from dllm2rec.data import Split

Outcome = Literal["helped", "harmed", "unclear", "none"]


class Versus(Settings):
    """A student against another, for a taught one the plain one, paired by example.

    Attributes:
        baseline: label of the other row.
        difference: mean over examples of this row's NDCG@20 minus the baseline's.
        interval: of the difference, with 95% confidence, see `trained_test`.
        gain: difference divided by the baseline's mean; None where that is zero.
        p_value: two-sided, see `trained_test`; of a row's test against plain, after Holm over the table.
        hits_gain: the same of HR@20.
        hits_p_value: the same of HR@20, after Holm over its tests.
        plain: whether the other is the same student without a teacher: then the difference is the teacher's.
        several_seeds: whether what is compared was trained with several seeds; else nothing says what another gives.
    """

    baseline: str
    difference: float
    interval: tuple[float, float]
    gain: float | None
    p_value: float
    hits_gain: float | None
    hits_p_value: float
    plain: bool = False
    several_seeds: bool = False


class Row(Settings):
    """One line of a table.

    Attributes:
        label: what it is.
        kind: a reference needs no training; the teacher labelled; a student was trained.
        student: name of the student, for students.
        method: name of the method, for students.
        distilled: whether a teacher taught it.
        seeds: of the runs that are averaged.
        metrics: mean over seeds of HR@20 and NDCG@20.
        validation: mean over seeds of NDCG@20 on validation, by which the best are chosen; None of a teacher, and in
            tables of some examples.
        spread: standard deviation over seeds (n - 1) of the same; empty for one seed.
        slices: HR@20 by how often training saw the target, see `popularity_slices`; by name of the slice.
        versus: the test against the plain student, or the one of the method that was asked for.
        seconds_per_1000: inference time for 1,000 users.
    """

    label: str
    kind: Literal["reference", "teacher", "student"]
    student: str | None = None
    method: str | None = None
    distilled: bool = False
    seeds: tuple[int, ...] = ()
    metrics: dict[str, float]
    validation: float | None = None
    spread: dict[str, float] = Field(default_factory=dict)
    slices: dict[str, float] = Field(default_factory=dict)
    versus: Versus | None = None
    seconds_per_1000: float | None = None


class Table(Settings):
    """Rows that were measured on the same examples.

    Attributes:
        title: what the examples are.
        examples: how many.
        rows: references, teacher, students.
        notes: split, variants, seeds, selection, tie rule; printed below each table.
        against: the method that rows are tested against.
        over_reference: the student against the reference that validation prefers; None where there is none.
        teacher_over: the teacher that labelled these examples, as its last row ranks, against the plain student that
            validation prefers; None where they are all examples, or no student is plain.
    """

    title: str
    examples: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    against: str = "plain"
    over_reference: Versus | None = None
    teacher_over: Versus | None = None


class Verdict(Settings):
    """The answer.

    Attributes:
        outcome: whether the teacher helped its students; none where nothing was distilled.
        headline: one sentence.
        lines: the figures behind it, one sentence each.
    """

    outcome: Outcome
    headline: str
    lines: tuple[str, ...]


class Comparison(Settings):
    """Tables and the answer that they give.

    Attributes:
        dataset: its name.
        split: which examples.
        tables: over all examples of the split; and over those that the teacher labelled, where there are any.
        verdict: in plain words.
    """

    dataset: str
    split: Split
    tables: tuple[Table, ...]
    verdict: Verdict

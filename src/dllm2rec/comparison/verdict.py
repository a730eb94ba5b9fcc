"""Did the teacher help? Tables become sentences."""

from collections.abc import Sequence

from dllm2rec.comparison.results import Outcome, Row, Table, Verdict, Versus
from dllm2rec.core.figures import figure, listing, p_text, percent
from dllm2rec.data import Split, TrainOn
from dllm2rec.evaluation.metrics import HITS, METRIC
from dllm2rec.evaluation.references import COUNTING, COUNTING_WITH_TEXT
from dllm2rec.evaluation.significance import SIGNIFICANT


def judge(
    tables: Sequence[Table],
    *,
    split: Split = "test",
    remarks: Sequence[str] = (),
    counted: TrainOn = "before-cut",
    against: str | None = None,
) -> Verdict:
    """Say in plain words what the tables show.

    Args:
        tables: over all examples; then, if there is one, over those that the teacher labelled.
        split: which examples; those of validation made the choices.
        remarks: what stands after the lines of the tests.
        counted: what the references were fitted to; a bundle of counting is fitted to all before the cut.
        against: the method that all others were tested against, if one was asked for.

    Returns:
        A headline and the figures behind it: each distilled student against the plain one, or each against that of the
        method that was asked for; then, of those that validation prefers, the student against the reference that needs
        no training, and the teacher against the plain student on the examples it labelled.
    """
    rows = tables[0].rows
    tested = [(row, row.versus) for row in rows if row.versus is not None]
    taught = [(row, versus) for row, versus in tested if versus.plain]
    lines = [_versus_line(row, versus) for row, versus in tested]
    lines += _untested(rows, against)
    lines += remarks
    lines += _reference_line(rows, tables[0].over_reference, split, counted)
    for table in tables[1:]:
        lines += _teacher_line(table)
    if against is None:
        outcome, headline = _headline(taught, distilled=any(row.distilled for row in rows))
    else:
        outcome, headline = "none", _against_headline(tested, against)
    if split == "validation" and (taught or against):
        headline = f"On validation, which was used for selection, so optimistic: {headline[0].lower()}{headline[1:]}"
    return Verdict(outcome=outcome, headline=headline, lines=tuple(lines))


def _untested(rows: Sequence[Row], against: str | None) -> list[str]:
    """Name the students that have nothing to be tested against, where others might have."""
    students = [row for row in rows if row.kind == "student"]
    if against is None:
        unlike = [row.label for row in students if row.distilled and not (row.versus and row.versus.plain)]
        other = "plain student" if any(not row.distilled for row in students) else None
    else:
        unlike = [row.label for row in students if row.method != against and row.versus is None]
        other = f"student of {against}"
    if not (unlike and other):
        return []
    return [f"Not tested, as no {other} here is of the same kind, protocol, data and loss: {listing(unlike)}."]


def is_significant(versus: Versus) -> bool:
    """Whether a difference is unlikely to be chance, at 5%; after Holm where several were tested together."""
    return versus.p_value < SIGNIFICANT


def _headline(taught: Sequence[tuple[Row, Versus]], *, distilled: bool) -> tuple[Outcome, str]:
    if not taught:
        missing = (
            "There is no plain student of the same kind to compare with, so nothing says whether the teacher helped; "
            "train one."
        )
        return "none", missing if distilled else "No student here was taught by a teacher."
    helped, harmed = _beyond_chance(taught, several_seeds=True)
    better, worse = _beyond_chance(taught, several_seeds=False)
    once = [f"{_names(some)} {word}" for some, word in ((better, "better"), (worse, "worse")) if some]
    if once and not (helped or harmed):
        return "unclear", (
            f"With one seed, {', '.join(once)} than plain beyond chance on these examples; but seeds differ, too: "
            "train several of each to see whether it was the teacher."
        )
    more = f" With one seed, which shows less, {', '.join(once)}." if once else ""
    match bool(helped), bool(harmed):
        case True, False:
            extent = "Yes" if len(helped) == len(taught) else "In part"
            return "helped", f"{extent}, the teacher helped: {_names(helped)} better than plain.{more}"
        case False, True:
            return "harmed", f"No, the teacher harmed: {_names(harmed)} worse than plain.{more}"
        case True, True:
            return "unclear", f"Mixed: {_names(helped)} better than plain, {_names(harmed)} worse.{more}"
        case _:
            return "unclear", "Not shown: no difference between plain and taught students is statistically significant."


def _against_headline(tested: Sequence[tuple[Row, Versus]], against: str) -> str:
    if not tested:
        return f"There is nothing to test against {against}."
    found = {True: list[Row](), False: list[Row]()}
    for row, versus in tested:
        if is_significant(versus):
            found[versus.difference > 0].append(row)
    said = [f"{_names(some)} {word}" for some, word in ((found[True], "better"), (found[False], "worse")) if some]
    once = (
        ""
        if all(versus.several_seeds for _, versus in tested)
        else (" Some have one seed: seeds differ, too, so their differences show less.")
    )
    return f"Against {against}, {', '.join(said)}.{once}" if said else f"No difference from {against} is significant."


def _beyond_chance(taught: Sequence[tuple[Row, Versus]], *, several_seeds: bool) -> tuple[list[Row], list[Row]]:
    """Return who is better and who is worse than plain, of those that were trained with several seeds, or with one."""
    found = [
        (row, versus) for row, versus in taught if is_significant(versus) and versus.several_seeds == several_seeds
    ]
    better, worse = ([row for row, versus in found if (versus.difference > 0) == sign] for sign in (True, False))
    return better, worse


def _names(rows: Sequence[Row]) -> str:
    return f"{listing([row.label for row in rows])} {'is' if len(rows) == 1 else 'are'}"


def _versus_line(row: Row, versus: Versus) -> str:
    value = row.metrics[METRIC]
    low, high = versus.interval
    return (
        f"{row.label}: {METRIC} {figure(value)} against {figure(value - versus.difference)} of {versus.baseline}, "
        f"{percent(versus.gain)} (difference between {low:+.4f} and {high:+.4f} with 95% confidence, uncorrected; "
        f"{_certain(versus)} after Holm); {HITS} {percent(versus.hits_gain)} ({p_text(versus.hits_p_value)})."
    )


def _certain(versus: Versus) -> str:
    return f"{'significant' if is_significant(versus) else 'not significant'}, {p_text(versus.p_value)}"


def _best(rows: Sequence[Row], kind: str) -> Row | None:
    """Return the row of a kind that validation prefers; of rows that do not say, the best on these examples."""
    return max((row for row in rows if row.kind == kind), key=_preferred, default=None)


def _preferred(row: Row) -> float:
    return row.metrics[METRIC] if row.validation is None else row.validation


def _reference_line(rows: Sequence[Row], over: Versus | None, split: Split, counted: TrainOn) -> list[str]:
    reference, student = _best(rows, "reference"), _best(rows, "student")
    if reference is None or student is None:
        return []
    if reference.metrics[METRIC] == student.metrics[METRIC] == 0:
        return ["No student and no baseline hits any target here: these examples can't say what to deploy."]
    seeds = "" if over is None or over.several_seeds else ", the student with one seed"
    hits = "" if over is None else f"; {HITS} {percent(over.hits_gain)}, {p_text(over.hits_p_value)}"
    tested = "" if over is None else f" ({percent(over.gain)}, {_certain(over)}{seeds}{hits})"
    return [
        f"{'The best on validation' if split == 'test' else 'The best on these examples'}: {student.label} reaches "
        f"{_reached(student, split)} and the baseline {reference.label} {_reached(reference, split)}"
        f"{tested}; {_advice(rows, student, reference, over, counted)}."
    ]


def _advice(rows: Sequence[Row], student: Row, reference: Row, over: Versus | None, counted: TrainOn) -> str:
    preferred = _preferred(student) > _preferred(reference)
    ahead = student.metrics[METRIC] > reference.metrics[METRIC]
    sure = over is None or is_significant(over)
    if preferred and ahead and sure:
        return f"deploy {student.label}"
    why = "on this data"
    if preferred != ahead:
        why = "validation and test disagree, and the baseline is simpler"
    elif not sure:
        why = "the difference may be chance, and the baseline is simpler"
    return f"{why}: deploy the baseline{_how(rows, reference, counted)}"


def _reached(row: Row, split: Split) -> str:
    there = f" (validation {figure(row.validation)})" if split == "test" and row.validation is not None else ""
    return f"{figure(row.metrics[METRIC])}{there}"


def _how(rows: Sequence[Row], best: Row, counted: TrainOn) -> str:
    """Say how to export a baseline: the best reference, or else the best one that can be exported."""
    able = _best([row for row in rows if row.label.startswith(COUNTING)], "reference")
    if able is None:
        return ""
    titles = " --knowledge KNOWLEDGE" if able.label.startswith(COUNTING_WITH_TEXT) else ""
    more = ["uses demand weights"] if not able.label.endswith("demand") else []
    more += ["counts every event before the cut"] if counted != "before-cut" else []
    beyond = f", which also {listing(more)}" if more else ""
    command = f"`dllm2rec export DATASET{titles} --out BUNDLE`{beyond}"
    if able is best:
        return f" ({command})"
    return f"; {best.label} can't be exported, {able.label} can, at {figure(able.metrics[METRIC])} ({command})"


def _teacher_line(table: Table) -> list[str]:
    shown, over = [row for row in table.rows if row.kind == "teacher"], table.teacher_over
    if not shown or over is None:
        return []
    own, word = shown[-1].metrics[METRIC], "better" if over.difference > 0 else "worse"
    said = f"the teacher is {word} than this student" if is_significant(over) else "neither is significantly better"
    without = ", without what the student leaves out," if len(shown) > 1 else ""
    return [
        f"On the {table.examples:,} examples that {shown[0].label} labelled, it reaches{without} {figure(own)} and "
        f"the best plain student on validation, {over.baseline}, {figure(own - over.difference)}: {said} "
        f"({p_text(over.p_value)})."
    ]

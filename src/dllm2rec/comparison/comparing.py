"""Verb `compare`: tables with paired tests, and the answer in plain words."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dllm2rec.comparison.evidence import (
    LEAVING_OUT,
    Evidence,
    Group,
    Taught,
    followed,
    gather,
    left_out,
    metric_values,
    reference_data,
)
from dllm2rec.comparison.pairing import (
    best_plain,
    beyond_parts,
    beyond_vectors,
    differing_settings,
    over_reference,
    pair_tests,
    teacher_over,
)
from dllm2rec.comparison.results import Comparison, Row, Table, Versus
from dllm2rec.comparison.verdict import judge
from dllm2rec.core.figures import listing
from dllm2rec.data import Split, TrainOn
from dllm2rec.data.splits import SPLITS
from dllm2rec.evaluation.metrics import HITS
from dllm2rec.evaluation.ranks import Ranks
from dllm2rec.evaluation.references import EASE_ITEMS
from dllm2rec.evaluation.slices import UNSEEN, Slice
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.training import method_name

Mask = NDArray[np.bool_]
LEARNED: dict[TrainOn, str] = {
    "examples": "the split's examples",
    "positions": "every position of the training sequences",
    "before-cut": "every event before the cut",
}
"""What students learn from, in words."""

AS_ABOVE = "Made as the table above, on fewer examples; of the differences only the teacher's is tested."


def compare(
    runs: Sequence[Run],
    *,
    split: Split = "test",
    mask_history: bool = False,
    seed: int = 0,
    against: str | None = None,
) -> Comparison:
    """Compare runs on the same dataset with each other, with their teacher, and with references without training.

    Args:
        runs: finished; those that were not evaluated on the split yet are.
        split: validation or test.
        mask_history: leave items of the history out of the rankings.
        seed: of the permutation tests.
        against: name of a method that all others are tested against, student by student; by default taught students
            are tested against the plain one.

    Raises:
        UserError: there is no run, the runs are on different datasets, or none is of the method ``against``.
    """
    return tabulate(gather(runs, split=split, mask_history=mask_history), seed=seed, against=against)


def tabulate(evidence: Evidence, *, seed: int = 0, against: str | None = None) -> Comparison:
    """Make tables of evidence: over all examples, and over those that each teacher labelled where it is not all."""
    everything = np.ones(len(evidence.examples), dtype=bool)
    complete = [taught for taught in evidence.teachers if taught.labelled.all()]
    versus = pair_tests(evidence, seed, against)
    tables = [_table(evidence, everything, complete, versus=versus, seed=seed, against=against)]
    partial = [taught for taught in evidence.teachers if not taught.labelled.all()]
    tables += [
        _table(evidence, taught.labelled, [taught], versus=None, seed=seed, against=against) for taught in partial
    ]
    runs = [run for group in evidence.groups for run in group.runs]
    return Comparison(
        dataset=evidence.dataset.manifest.name,
        split=evidence.split,
        tables=tuple(tables),
        verdict=judge(
            tables,
            split=evidence.split,
            remarks=[*beyond_vectors(evidence, seed), *beyond_parts(evidence, seed)],
            counted=reference_data(runs),
            against=against,
        ),
    )


def _table(
    evidence: Evidence,
    kept: Mask,
    teachers: Sequence[Taught],
    *,
    versus: Mapping[str, Versus] | None,
    seed: int,
    against: str | None = None,
) -> Table:
    """Make a table of some examples; without tests of its rows where ``versus`` is None."""
    slices, tested = evidence.slices, versus is not None
    references = [_reference_row(name, evidence, kept, slices) for name in evidence.references]
    students = [_student_row(group, kept, slices, (versus or {}).get(group.label)) for group in evidence.groups]
    if not tested or evidence.split == "validation":  # these examples chose nothing, or are those that chose
        references, students = (
            [row.model_copy(update={"validation": None}) for row in rows] for rows in (references, students)
        )
    rows = [*references, *(row for taught in teachers for row in _teacher_rows(taught, evidence)), *students]
    title = f"{evidence.dataset.manifest.name}, {int(kept.sum()):,} {evidence.split} examples"
    if not tested:
        title += f" that {teachers[0].name} labelled"
    return Table(
        title=title,
        examples=int(kept.sum()),
        rows=tuple(rows),
        notes=(AS_ABOVE,) if versus is None else _notes(evidence, versus, against),
        against=against or "plain",
        over_reference=over_reference(evidence, seed) if tested else None,
        teacher_over=None if tested else teacher_over(evidence, teachers[0], seed),
    )


def _reference_row(name: str, evidence: Evidence, kept: Mask, slices: Sequence[Slice]) -> Row:
    reference = evidence.references[name]
    values = metric_values(reference.ranks)
    return Row(
        label=name,
        kind="reference",
        metrics={metric: float(value[kept].mean()) for metric, value in values.items()},
        validation=reference.validation,
        slices=_by_slice(values[HITS], kept, slices),
        seconds_per_1000=reference.seconds_per_1000,
    )


def _teacher_rows(taught: Taught, evidence: Evidence) -> list[Row]:
    """Show its lists as they are, and without what students beside it leave out."""
    best = best_plain(evidence)
    what = best.left_out if best else left_out([run for group in evidence.groups for run in group.runs])
    label = f"teacher {taught.name}"
    rows = [_teacher_row(label, taught, taught.ranks, evidence.slices)]
    if what in LEAVING_OUT:
        ranks = taught.ranks_without(what, evidence.examples)
        rows.append(_teacher_row(f"{label}, {LEAVING_OUT[what]}", taught, ranks, evidence.slices))
    return rows


def _teacher_row(label: str, taught: Taught, ranks: Ranks, slices: Sequence[Slice]) -> Row:
    values = metric_values(ranks)
    hits = np.zeros(len(taught.labelled))
    hits[taught.labelled] = values[HITS]
    return Row(
        label=label,
        kind="teacher",
        metrics={metric: float(value.mean()) for metric, value in values.items()},
        slices=_by_slice(hits, taught.labelled, slices),
        seconds_per_1000=taught.seconds_per_1000,
    )


def _student_row(group: Group, kept: Mask, slices: Sequence[Slice], versus: Versus | None) -> Row:
    by_seed = {metric: values[:, kept].mean(axis=1) for metric, values in group.values.items()}
    several = len(group.runs) > 1
    return Row(
        label=group.label,
        kind="student",
        student=group.student,
        method=group.runs[0].config.method,
        distilled=group.distilled,
        seeds=tuple(run.config.seed for run in group.runs),
        metrics={metric: float(values.mean()) for metric, values in by_seed.items()},
        validation=group.validation,
        spread={metric: float(values.std(ddof=1)) for metric, values in by_seed.items()} if several else {},
        slices=_by_slice(group.values[HITS].mean(axis=0), kept, slices),
        versus=versus,
        seconds_per_1000=group.seconds_per_1000,
    )


def _by_slice(hits: NDArray[np.float64], kept: Mask, slices: Sequence[Slice]) -> dict[str, float]:
    """Average over the examples of each slice that are kept; a slice that keeps none is left out."""
    rows = {one.name: one.rows & kept for one in slices}
    return {name: float(hits[some].mean()) for name, some in rows.items() if some.any()}


def _software(groups: Sequence[Group]) -> list[str]:
    """Say where the runs of a table were made by different code of ours, or of PyTorch."""
    configs = [run.config for group in groups for run in group.runs]
    found = {name: {config.software.get(name, "none") for config in configs} for name in ("dllm2rec", "torch")}
    found["dllm2rec's training"] = {str(config.revision) for config in configs}
    told = [f"{name} ({', '.join(sorted(versions))})" for name, versions in found.items() if len(versions) > 1]
    if not told:
        return []
    return [f"Runs were made by different versions of {listing(told)}; retrain what you compare."]


def _notes(evidence: Evidence, versus: Mapping[str, Versus], against: str | None) -> tuple[str, ...]:
    manifest = evidence.dataset.manifest
    follows = followed([run for group in evidence.groups for run in group.runs])
    itself = ", except by students trained with a masked softmax, and in rows that say so"
    if follows == "demand":
        teachers = ", and in rows of a teacher that say so" if evidence.teachers else ""
        itself = f", except by students and baselines whose demand weights say so{teachers}"
    masked = "masked" if evidence.mask_history else "not masked"
    chosen = (
        ", and so were the student and the baseline that are compared last"
        if evidence.split == "test"
        else ", that is on these examples, so these figures are optimistic"
    )
    notes = [
        _split(evidence),
        f"Methods: {_methods(evidence.groups)}.",
        _seeds(evidence.groups),
        f"Selection: epochs and settings were chosen by validation NDCG@20 only{chosen}.",
        f"Ranks: among all {manifest.num_items:,} items, ties take the mean rank, items of the history {masked}"
        f"{'' if follows == 'nothing' else itself}.",
        _data(evidence),
    ]
    unseen = sum(int(one.rows.sum()) for one in evidence.slices if one.name == UNSEEN)
    if unseen:
        notes.append(
            f"{unseen:,} of {len(evidence.examples):,} targets occur in none of these (cold-start items); the column "
            "unseen is HR@20 on them, shown if any row hits one."
        )
    if versus:
        whom = "the plain student" if against is None else f"the student of {against}"
        instead = ", or, where all students are taught or all are plain, against the first" if against is None else ""
        notes.append(
            f"Tests: NDCG@20, and likewise HR@20, per example (mean over seeds) against {whom} of the same name, else "
            f"of the same kind, protocol, data and loss, of several the one that validation prefers{instead}; "
            "two-sided sign-flip permutation test over users and, with several seeds, a t-test over users and seeds: "
            f"the larger p; Holm correction over {len(versus)}, for each of the two."
        )
        if any(len(group.runs) == 1 for group in evidence.groups):
            notes.append(
                "Where a student has one seed, variation between seeds is unknown and may be as large as a difference."
            )
    by_label = {group.label: group for group in evidence.groups}
    differing: dict[str, list[str]] = {}
    for label, test in versus.items():
        one, other = by_label[label], by_label[test.baseline]
        if (test.plain or against) and (
            found := differing_settings(one, other, taught=one.distilled and other.distilled)
        ):
            differing.setdefault(", ".join(found), []).append(f"{one.label} and {other.label}")
    notes += [f"{'; '.join(pairs)} also differ in {what}." for what, pairs in differing.items()]
    if not evidence.teachers:
        notes.append(f"No teacher labelled {evidence.split} examples.")
    notes += _software(evidence.groups)
    notes += [f"The teacher's knowledge is no longer at {path}, or has changed." for path in evidence.missing]
    return tuple(notes)


def _split(evidence: Evidence) -> str:
    """Say how the data were cut, what was drawn of the parts, and what is no test of the time to come."""
    split = evidence.dataset.manifest.split
    sizes = {part: getattr(split, f"sample_{part}") for part in SPLITS}
    drawn = ", ".join(f"{size:,} {part}" for part, size in sizes.items() if size is not None)
    later = (
        "; training has events later than its targets, so this is no test of the future"
        if split.kind == "leave-one-out"
        else ""
    )
    return f"Split: {split.kind}, {evidence.split} part{f' (drawn: {drawn} examples)' if drawn else ''}{later}."


def _data(evidence: Evidence) -> str:
    """Say what was learned from."""
    learned = LEARNED
    if evidence.dataset.manifest.split.kind == "leave-one-out":  # cuts no time
        learned = LEARNED | {"before-cut": "every event that is not held out"}
    by_group = {group.label: learned[group.runs[0].config.settings.train_on] for group in evidence.groups}
    runs = [run for group in evidence.groups for run in group.runs]
    counted = learned["before-cut"] if reference_data(runs) == "before-cut" else "the training sequences"
    recent = ", recent popularity the newest tenth of that"
    follow = any(run.config.settings.student.transitions for run in runs)
    transitions = "; for students also for transition counts" if follow else ""
    demand = (
        " Demand: weights chosen on validation for items of the history, for an item's trend, for new items and, where "
        f"text is read, for text neighbours{transitions}."
    )
    return (
        f"Students learn from: {_whose(evidence.groups, by_group)}. "
        f"Baselines without training ({', '.join(evidence.references)}) count {counted}"
        f"{recent if 'recent popularity' in evidence.references else ''}."
        f"{'' if 'EASE' in evidence.references else f' EASE is left out beyond {EASE_ITEMS:,} items.'}"
        f"{demand if any(run.config.settings.demand != 'none' for run in runs) else ''}"
    )


def _methods(groups: Sequence[Group]) -> str:
    """The names of the methods, and what they are where names do not say it."""
    names: dict[str, list[str]] = {}
    for config in (group.runs[0].config for group in groups):
        known = names.setdefault(method_name(config.settings), [])
        known += [config.method] if config.method not in known else []
    return "; ".join(
        kind if same == [kind] else f"{', '.join(sorted(same))} = {kind}" for kind, same in sorted(names.items())
    )


def _seeds(groups: Sequence[Group]) -> str:
    by_group = {group.label: ", ".join(str(run.config.seed) for run in group.runs) for group in groups}
    spread = "; mean ± standard deviation over seeds" if any(len(group.runs) > 1 for group in groups) else ""
    return f"Seeds: {_whose(groups, by_group)}{spread}."


def _whose(groups: Sequence[Group], by_group: Mapping[str, str]) -> str:
    """Say what is said of each group, by its label: once, with those of whom it is said, unless it is of all.

    A student of whose groups all is the same goes by the name of the student.
    """
    if len(set(by_group.values())) == 1:
        return next(iter(by_group.values()))
    said: dict[str, list[str]] = {}
    for group in groups:
        what = by_group[group.label]
        alike = all(by_group[other.label] == what for other in groups if other.student == group.student)
        names, name = said.setdefault(what, []), group.student if alike else group.label
        if name not in names:
            names.append(name)
    return "; ".join(f"{what} ({', '.join(names)})" for what, names in said.items())

"""Tables 1 to 9 of the paper, each a function from results to a sheet."""

from collections.abc import Callable, Sequence

from dllm2rec.comparison.agreeing import Agreement, agree
from dllm2rec.comparison.evidence import Group, metric_values
from dllm2rec.comparison.results import Row
from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import duration, figure, p_figure, percent
from dllm2rec.evaluation.metrics import HITS, METRIC, METRICS
from dllm2rec.reporting.paper.cells import (
    METHODS,
    Results,
    differences,
    of_dllm2rec,
    published_student,
)
from dllm2rec.reporting.paper.published import on, published, result
from dllm2rec.reporting.paper.sheet import MISSING, SPREAD, Cell, Sheet, marked, plain

Rows = list[tuple[Cell, ...]]


def require_known(number: int) -> None:
    """Check that the paper has such a table.

    Raises:
        UserError: it has not.
    """
    if number not in TABLES:
        raise UserError(f"--table {number}: the paper has tables 1 to 9")


def tables(results: Sequence[Results]) -> dict[int, Sheet]:
    """Build all tables of the paper of which these results have rows, by number.

    Raises:
        UserError: there are none.
    """
    found = {number: rows for number in TABLES if (rows := _rows(number, results))}
    if not found:
        raise UserError(f"{', '.join(str(one.path) for one in results)}: nothing there that a table of the paper shows")
    return {number: _sheet(number, rows, results) for number, rows in found.items()}


def table(number: int, results: Sequence[Results]) -> Sheet:
    """Build a table of the paper.

    Args:
        number: 1 to 9.
        results: one for each dataset.

    Raises:
        UserError: there is no such table, or the results hold nothing that could stand in it.
    """
    require_known(number)
    rows = _rows(number, results)
    if not rows:
        _, _, _, needs = TABLES[number]
        raise UserError(f"table {number} needs {needs}; {', '.join(str(one.path) for one in results)} has none")
    return _sheet(number, rows, results)


def _rows(number: int, results: Sequence[Results]) -> Rows:
    _, _, build, _ = TABLES[number]
    return [row for one in results for row in build(one)]


def _sheet(number: int, rows: Rows, results: Sequence[Results]) -> Sheet:
    title, header, _, _ = TABLES[number]
    return Sheet(name=f"Table {number}", title=title, header=header, rows=tuple(rows), notes=notes(results))


def _quality(results: Results) -> Rows:
    return _teacher_and_students(results, distilled=False)


def _quality_after(results: Results) -> Rows:
    return _teacher_and_students(results, distilled=True)


def _teacher_and_students(results: Results, *, distilled: bool) -> Rows:
    """Quality on the examples that the teacher labelled, and time."""
    rows: Rows = []
    evidence = results.evidence
    for taught in evidence.teachers:
        values = metric_values(taught.ranks)
        paper = result("teacher", "BIGRec", results.published_dataset) if taught.name.startswith("bigrec") else None
        shown = [float(values[name].mean()) for name in METRICS]
        label = f"teacher {taught.name}"
        rows.append(plain(results.dataset, label, *_timed(shown, taught.seconds_per_1000, paper), MISSING))
        for student in results.students:
            groups = [one for one in (results.plain(student),) if one is not None]
            if distilled:
                groups += [one for one in results.full(student) if one.learned_from(taught.knowledge)]
            for group in groups:
                mean = [float(group.values[name][:, taught.labelled].mean()) for name in METRICS]
                timed = _timed(mean, group.seconds_per_1000, _published(group, results))
                taken = taught.seconds_per_1000
                ratio = MISSING if taken is None else f"{taken / group.seconds_per_1000:,.0f}"
                rows.append(plain(results.dataset, group.label, *timed, ratio))
    return rows


def _timed(values: Sequence[float], seconds: float | None, paper: tuple[float, float] | None) -> list[str]:
    return [*map(figure, values), duration(seconds) or MISSING, *_pair(paper)]


def _wins(results: Results) -> Rows:
    return [
        plain(
            results.dataset,
            label,
            f"{found.wins.first:.1%}",
            f"{found.wins.second:.1%}",
            f"{found.wins.differing:,}",
            _share(on("wins", results.published_dataset)),
        )
        for label, found in _agreements(results)
    ]


def _overlap(results: Results) -> Rows:
    games = results.published_dataset == "Games"
    hits = published()["hits"]
    return [
        plain(
            results.dataset,
            label,
            f"{found.overlap:.2%}",
            f"{found.hits.both:.2%}",
            f"{found.hits.one:.2%}",
            _share(on("overlap", results.published_dataset)),
            _share(hits["both"] if games else None),
            _share(hits["one"] if games else None),
        )
        for label, found in _agreements(results)
    ]


def _overlap_after(results: Results) -> Rows:
    rows: Rows = []
    for taught in results.evidence.teachers:
        for student in results.students:
            before = results.plain(student)
            for after in results.full(student):
                if not after.learned_from(taught.knowledge):
                    continue
                rows.append(
                    plain(
                        results.dataset,
                        after.label,
                        MISSING if before is None else f"{agree(results.evidence, taught, before).overlap:.2%}",
                        f"{agree(results.evidence, taught, after).overlap:.2%}",
                        _share(on("overlap", results.published_dataset)),
                        _share(on("overlap_after", results.published_dataset)),
                    )
                )
    return rows


def _agreements(results: Results) -> list[tuple[str, Agreement]]:
    """Compare every teacher with every plain student; of several teachers a row says which."""
    teachers = results.evidence.teachers
    return [
        (group.label if len(teachers) == 1 else f"{group.label}, {taught.name}", agree(results.evidence, taught, group))
        for taught in teachers
        for group in results.evidence.groups
        if not group.distilled
    ]


def _datasets(results: Results) -> Rows:
    manifest = results.evidence.dataset.manifest
    paper = published()["datasets"].get(results.published_dataset)
    counts = (manifest.num_users, manifest.num_items, manifest.num_interactions)
    parts = [manifest.counts[split] for split in ("train", "validation", "test")]
    theirs = [MISSING] * 3 if paper is None else [f"{count:,}" for count in paper]
    return [plain(results.dataset, *(f"{count:,}" for count in (*counts, *parts)), *theirs)]


def _all_methods(results: Results) -> Rows:
    """References, then every student with every method of the paper; methods that were not run are missing."""
    whole = {row.label: row for row in results.comparison.tables[0].rows}
    rows: Rows = []
    for row in whole.values():
        if row.kind != "student":
            rows.append(
                plain(results.dataset, row.label, "", *(figure(row.metrics[name]) for name in METRICS), *[MISSING] * 4)
            )
    for student in results.students:
        groups = _in_order(results, student)
        rows += _methods_of(results, student, groups, whole)
    return rows


def _in_order(results: Results, student: str) -> list[Group]:
    """Put the cells of a student in the paper's order, ours after it; parts of DLLM2Rec are left to tables 8 and 9."""
    order, full = list(METHODS.values()), results.full(student)
    kept = [
        group
        for group in results.of(student)
        if group in full or not any(len(_changed(group, one) or {}) == 1 for one in full)
    ]
    return sorted(kept, key=lambda group: _place(results.method(group), order))


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _methods_of(results: Results, student: str, groups: Sequence[Group], whole: dict[str, Row]) -> Rows:
    named: dict[str, Group] = {}
    for group in groups:  # two of one method, such as Hint with two weights, go by what they are called here
        name = results.method(group)
        named[name if name not in named else group.label] = group
    known = published_student(groups[0])
    names = list(dict.fromkeys([*(METHODS.values() if known else ()), *named]))
    found = [whole[named[name].label] if name in named else None for name in names]
    columns = []
    for metric in METRICS:
        values = [None if row is None else row.metrics[metric] for row in found]
        columns.append(marked(values, [MISSING if row is None else _spread(row, metric) for row in found]))
    return [
        (
            *plain(results.dataset, student, name),
            columns[0][place],
            columns[1][place],
            *plain(*_versus(row), *_pair(result(known, name, results.published_dataset) if known else None)),
        )
        for place, (name, row) in enumerate(zip(names, found, strict=True))
    ]


def _spread(row: Row, metric: str) -> str:
    return figure(row.metrics[metric]) + (SPREAD + figure(row.spread[metric]) if metric in row.spread else "")


def _versus(row: Row | None) -> tuple[str, str]:
    if row is None or row.versus is None:
        return MISSING, MISSING
    return percent(row.versus.gain), p_figure(row.versus.p_value)


def _ranking_ablation(results: Results) -> Rows:
    parts: dict[str, dict[str, object]] = {
        "without ranking distillation": {"lambda_d": 0.0},
        "without position weights": {"gamma_position": 0.0},
        "without confidence weights": {"gamma_confidence": 0.0},
        "without consistency weights": {"gamma_consistency": 0.0},
    }
    return _ablation(results, parts)


def _embedding_ablation(results: Results) -> Rows:
    parts: dict[str, dict[str, object]] = {
        "without embedding distillation": {"embedding": False},
        "without the offset": {"embedding": "projection"},
        "replaced by Hint": {"embedding": "hint"},
        "replaced by HTD": {"embedding": "htd"},
    }
    return _ablation(results, parts)


def _ablation(results: Results, parts: dict[str, dict[str, object]]) -> Rows:
    rows: Rows = []
    for student in results.students:
        for full in results.full(student):
            cells = {
                name: next((one for one in results.of(student) if _changed(one, full) == change), None)
                for name, change in parts.items()
            }
            if not any(cells.values()):
                continue
            listed: dict[str, Group | None] = {"all of it": full, **cells, "no teacher": results.plain(student)}
            for name, group in listed.items():
                shown = [MISSING] * 2 if group is None else [figure(float(group.values[one].mean())) for one in METRICS]
                rows.append(plain(results.dataset, full.label, name, *shown, _against(group, full)))
    return rows


def _changed(group: Group, full: Group) -> dict[str, object] | None:
    """What a cell with DLLM2Rec sets otherwise than the full one; None for other cells."""
    if not of_dllm2rec(group):
        return None
    return {name: value for name, (value, _) in differences(group, full).items()}


def _against(group: Group | None, full: Group) -> str:
    if group is None or group is full:
        return MISSING
    whole = float(full.values[METRIC].mean())
    return percent(float(group.values[METRIC].mean()) / whole - 1) if whole else MISSING


def _published(group: Group, results: Results) -> tuple[float, float] | None:
    student = published_student(group)
    return None if student is None else result(student, results.method(group), results.published_dataset)


def _pair(values: tuple[float, float] | None) -> tuple[str, str]:
    return (MISSING, MISSING) if values is None else (figure(values[0]), figure(values[1]))


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2%}"


def notes(results: Sequence[Results]) -> tuple[str, ...]:
    """Split, methods, seeds, selection, tie rule of each dataset; and where the paper's figures come from."""
    by_note: dict[str, list[str]] = {}
    for one in results:
        for note in one.comparison.tables[0].notes:
            by_note.setdefault(note, []).append(one.dataset)
    said = [
        note if len(datasets) == len(results) else f"{', '.join(datasets)}: {note}"
        for note, datasets in by_note.items()
    ]
    said.append(f"'{MISSING}' was not run, or not reported; 'paper' is {published()['citation']}.")
    return tuple(said)


_PAPER = (f"paper {HITS}", f"paper {METRIC}")
_TIMES = ("dataset", "", HITS, METRIC, "s/1k users", *_PAPER, "times as fast as the teacher")
TABLES: dict[int, tuple[str, tuple[str, ...], Callable[[Results], Rows], str]] = {
    1: (
        "Teacher and plain students: quality on the examples that the teacher labelled, and inference time",
        _TIMES,
        _quality,
        "labels of examples of this split",
    ),
    2: (
        "Who wins: share of the examples that differ in NDCG@20 where the teacher, or the student, is better",
        ("dataset", "student", "teacher better", "student better", "examples that differ", "paper: teacher better"),
        _wins,
        "labels of examples of this split, and a plain student",
    ),
    3: (
        "Overlap of the lists of teacher and plain student; how often an item in both, or in one, is what came next",
        (
            "dataset",
            "student",
            "overlap",
            "hits in both",
            "hits in one",
            "paper overlap",
            "paper hits in both",
            "paper hits in one",
        ),
        _overlap,
        "labels of examples of this split, and a plain student",
    ),
    4: (
        "Datasets",
        (
            "dataset",
            "users",
            "items",
            "interactions",
            "train",
            "validation",
            "test",
            "paper users",
            "paper items",
            "paper interactions",
        ),
        _datasets,
        "a dataset",
    ),
    5: (
        "All methods; best bold and second best underlined for each student",
        ("dataset", "student", "method", HITS, METRIC, "vs plain", "p (Holm)", *_PAPER),
        _all_methods,
        "students",
    ),
    6: (
        "Teacher, plain and distilled students: quality on the examples that the teacher labelled, and inference time",
        _TIMES,
        _quality_after,
        "labels of examples of this split",
    ),
    7: (
        "Overlap of the lists of teacher and student before and after distillation",
        ("dataset", "student", "before", "after", "paper before", "paper after"),
        _overlap_after,
        "labels of examples of this split, and a student with DLLM2Rec",
    ),
    8: (
        "Ranking distillation without its parts",
        ("dataset", "student", "", HITS, METRIC, "against all of it, NDCG@20"),
        _ranking_ablation,
        "cells with DLLM2Rec that leave one part out, such as method.gamma_position=0 or method.lambda_d=0",
    ),
    9: (
        "Embedding distillation without its parts",
        ("dataset", "student", "", HITS, METRIC, "against all of it, NDCG@20"),
        _embedding_ablation,
        "cells with DLLM2Rec that leave one part out, such as method.embedding=false or method.embedding=projection",
    ),
}

"""The parts of the report, each from evidence to HTML."""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dllm2rec.comparison.agreeing import agree
from dllm2rec.comparison.diagnosis import headline
from dllm2rec.comparison.doctor import confidence_weights
from dllm2rec.comparison.evidence import Evidence, Group, Taught
from dllm2rec.comparison.examination import Examination
from dllm2rec.comparison.pairing import plain_of
from dllm2rec.evaluation.metrics import METRIC
from dllm2rec.evaluation.slices import Slice, history_slices
from dllm2rec.knowledge.align import align
from dllm2rec.reporting.report.charts import bar_chart, line_chart
from dllm2rec.reporting.report.markup import findings, folded, paragraph, plain_table
from dllm2rec.reporting.summary import SEARCH_HEADER, Extras, search_rows, timing_lines
from dllm2rec.training.runlog import read_log

_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, float("inf"))


def training_curves(evidence: Evidence) -> str:
    """Validation NDCG@20 an epoch, of the first seed of each group."""
    series = {}
    for group in evidence.groups:
        lines = read_log(group.runs[0].path)
        if lines:
            epochs = [float(line["epoch"]) for line in lines]
            series[group.label] = (epochs, [line["validation"][METRIC] for line in lines])
    caption = "Validation NDCG@20 after each epoch (first seed). The best epoch is the one that is tested."
    return line_chart("curves", series, x="epoch", y=METRIC, caption=caption) if series else ""


def slices(evidence: Evidence) -> list[str]:
    """NDCG@20 by how often training saw the target, and by the length of the history."""
    length = history_slices(evidence.examples)
    return [
        _slice_chart(
            "by-popularity",
            evidence,
            evidence.slices,
            "By how often the item that came next occurs in training. One that never does can only be found by text.",
        ),
        _slice_chart("by-history", evidence, length, "By the number of items in the history."),
    ]


def _slice_chart(name: str, evidence: Evidence, parts: Sequence[Slice], caption: str) -> str:
    if len(parts) < 2:
        return ""
    names = [f"{part.name}<br>({int(part.rows.sum()):,})" for part in parts]
    series = {
        group.label: [float(group.values[METRIC][:, part.rows].mean()) for part in parts] for group in evidence.groups
    }
    if evidence.best_reference is not None:
        reference, values = evidence.best_reference
        series[f"{reference} (no training)"] = [float(values[METRIC][part.rows].mean()) for part in parts]
    return bar_chart(name, names, series, y=METRIC, caption=caption)


def agreement(evidence: Evidence) -> list[str]:
    """How each student stands to each teacher, on the examples that the teacher labelled."""
    return [
        part
        for number, taught in enumerate(evidence.teachers)
        for part in (
            _agreement_table(evidence, taught),
            _agreement_words(taught),
            _overlap_chart(evidence, taught, f"overlap-{number}"),
            _confidence_chart(evidence, taught, f"confidence-{number}"),
        )
    ]


def _agreement_table(evidence: Evidence, taught: Taught) -> str:
    header = ("student", "teacher better", "student better", "differ", "lists share", "hits in both", "hits in one")
    return plain_table(header, [_agreement_row(evidence, taught, group) for group in evidence.groups])


def _agreement_row(evidence: Evidence, taught: Taught, group: Group) -> tuple[str, ...]:
    found = agree(evidence, taught, group)
    return (
        group.label,
        f"{found.wins.first:.1%}",
        f"{found.wins.second:.1%}",
        f"{found.wins.differing:,}",
        f"{found.overlap:.2%}",
        f"{found.hits.both:.2%}",
        f"{found.hits.one:.2%}",
    )


def _agreement_words(taught: Taught) -> str:
    count = int(taught.labelled.sum())
    return paragraph(
        f"On the {count:,} examples that {taught.name} labelled: who is better where the two differ in NDCG@20; how "
        "much of their lists of 20 is the same; and how often an item in both lists, or in one, is what came next.",
        style="notes",
    )


def _overlap_chart(evidence: Evidence, taught: Taught, name: str) -> str:
    """How much of their lists teacher and student share, before and after distillation."""
    taught_groups = [group for group in evidence.groups if group.learned_from(taught.knowledge)]
    if not taught_groups:
        return ""
    shared = {group.label: agree(evidence, taught, group).overlap for group in evidence.groups}
    plain = [next(iter(plain_of(group, evidence.groups)), None) for group in taught_groups]
    series: dict[str, list[float | None]] = {
        "before": [None if before is None else shared[before.label] for before in plain],
        "after": [shared[group.label] for group in taught_groups],
    }
    return bar_chart(
        name,
        [group.label for group in taught_groups],
        series,
        y="share of the lists",
        caption=f"How much of the lists of 20 of student and {taught.name} is the same, before and after distillation.",
    )


def _confidence_chart(evidence: Evidence, taught: Taught, name: str) -> str:
    """How the confidence weights of the labelled training examples are spread."""
    rows = align(taught.knowledge, evidence.dataset, evidence.dataset.training_examples("before-cut"))
    weights = confidence_weights(taught.knowledge, rows)
    if weights is None:
        return ""
    place = np.digitize(weights, _EDGES[1:-1])
    count = np.bincount(place, minlength=len(_EDGES) - 1) / len(weights)
    weight = np.bincount(place, weights=weights, minlength=len(_EDGES) - 1) / weights.sum()
    names = [f"{low:g} to {high:g}" for low, high in pairwise(_EDGES[:-1])] + [f"above {_EDGES[-2]:g}"]
    return bar_chart(
        name,
        names,
        {"share of the examples": count.tolist(), "share of the weight": weight.tolist()},
        y="share",
        caption=f"Confidence of {taught.name} in the {len(weights):,} training examples that it labelled: their "
        "weights (eq. 7), as multiples of the mean. Where all are alike, the teacher's confidence tells nothing.",
    )


def doctors_page(page: Examination) -> list[str]:
    """What the doctor says about the teacher."""
    return [paragraph(headline(page)), findings(page.findings)]


def search_table(extras: Extras) -> str:
    """All trials of the search."""
    return plain_table(SEARCH_HEADER, search_rows(extras.choices)) if extras.choices else ""


def settings_and_versions(evidence: Evidence, extras: Extras) -> list[str]:
    """What was run, and how long it took."""
    dataset = json.dumps(evidence.dataset.manifest.model_dump(mode="json"), indent=2)
    parts = [paragraph(line) for line in timing_lines(extras.times)] if extras.times else []
    parts.append(folded("dataset", dataset))
    for taught in evidence.teachers:
        manifest = taught.knowledge.manifest.model_dump(mode="json")
        parts.append(folded(f"teacher: {taught.name}", json.dumps(manifest, indent=2)))
    for group in evidence.groups:
        config = group.runs[0].config.model_dump(mode="json")
        parts.append(folded(f"{group.label}, seed {group.runs[0].config.seed}", json.dumps(config, indent=2)))
    return parts

"""A few users: what they chose, what the teacher wrote, what plain and taught students say, what came next."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from dllm2rec.comparison.evidence import Evidence, Group, Taught
from dllm2rec.comparison.pairing import plain_of
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.reporting.report.markup import definitions

USERS = 20
LIST = 5


def user_cards(evidence: Evidence) -> str:
    """Show users, where a teacher labelled some only of those: some whom it helped, some whom it harmed, others."""
    pairs = ([*plain_of(taught, evidence.groups)[:1], taught] for taught in evidence.groups)
    groups = next((pair for pair in pairs if len(pair) == 2), evidence.groups[:2])
    able = [one for one in evidence.teachers if not groups[-1].distilled or groups[-1].learned_from(one.knowledge)]
    teacher = able[0] if able else None
    rows = _choose(evidence, groups, teacher)
    return '<div class="users">' + "".join(_card(evidence, groups, teacher, row) for row in rows) + "</div>"


def _choose(evidence: Evidence, groups: Sequence[Group], teacher: Taught | None) -> list[int]:
    """A fixed draw: a third each from those whose rank got better, got worse, and from all."""
    count = len(evidence.examples)
    allowed = teacher.labelled if teacher is not None else np.ones(count, dtype=bool)
    order: NDArray[np.int64] = numpy_generator(0, "users").permutation(count)
    order = order[allowed[order]]
    before, after = groups[0].ranks[0].rank, groups[-1].ranks[0].rank
    listed = np.minimum(before, after) <= LIST
    better, worse = order[(listed & (after < before))[order]], order[(listed & (after > before))[order]]
    third = USERS // 3
    rows = [*better[:third].tolist(), *worse[:third].tolist()]
    return rows + [row for row in order.tolist() if row not in rows][: USERS - len(rows)]


def _card(evidence: Evidence, groups: Sequence[Group], teacher: Taught | None, row: int) -> str:
    titles, examples = evidence.dataset.titles, evidence.examples
    history = [titles[item] for item in examples.history[row].tolist() if item != examples.num_items]
    target = int(examples.target[row])
    pairs = [("chose", escape(" · ".join(history)))]
    if teacher is not None and teacher.labelled[row]:
        pairs += _teacher_lines(teacher, titles, row, target)
    pairs += [(group.label, _titles(titles, group.ranks[0].top_items, row, target)) for group in groups]
    pairs.append(("came next", f'<span class="hit">{escape(titles[target])}</span>'))
    ranks = ", ".join(f"{group.ranks[0].rank[row]:.0f}" for group in groups)
    pairs.append(("its rank", f"{ranks} of {examples.num_items:,}"))
    return f'<div class="user">{definitions(pairs)}</div>'


def _teacher_lines(teacher: Taught, titles: list[str], row: int, target: int) -> list[tuple[str, str]]:
    text = teacher.knowledge.labels.generated_text[teacher.label_rows[row]]
    items = teacher.knowledge.labels.ranked_items[teacher.label_rows[row], :LIST]
    listed = _join(titles, items.tolist(), target)
    return [("teacher wrote", f"“{escape(text[:160])}”"), ("which means", listed)] if text else [("teacher", listed)]


def _titles(titles: list[str], top_items: NDArray[np.int32] | None, row: int, target: int) -> str:
    return "" if top_items is None else _join(titles, top_items[row, :LIST].tolist(), target)


def _join(titles: list[str], items: list[int], target: int) -> str:
    marked = [
        f'<span class="hit">{escape(titles[item])}</span>' if item == target else escape(titles[item]) for item in items
    ]
    return " · ".join(marked)

"""How a student stands to its teacher, on the examples that the teacher labelled (tables 2, 3 and 7 of the paper)."""

from dataclasses import dataclass

import numpy as np

from dllm2rec.comparison.evidence import Evidence, Group, Taught
from dllm2rec.evaluation.agreement import OverlapHits, WinRatio, hit_rate_by_overlap, overlap, win_ratio
from dllm2rec.evaluation.metrics import METRIC, TOP, ndcg


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Means over the seeds of a student.

    Attributes:
        wins: teacher (first) against student (second), where they differ in NDCG@20.
        overlap: share of their lists that is the same.
        hits: hit rate of items in both lists, and in one.
        depth: of the lists: 20, or fewer where the teacher lists fewer.
    """

    wins: WinRatio
    overlap: float
    hits: OverlapHits
    depth: int


def agree(evidence: Evidence, taught: Taught, group: Group) -> Agreement:
    """Compare a teacher and a student where the teacher labelled; both leave out what the student does."""
    kept, lists_of = taught.labelled, taught.ranks_without(group.left_out, evidence.examples)
    teacher = lists_of.top_items
    assert teacher is not None  # noqa: S101 - a teacher's ranks come from its lists
    own = ndcg(lists_of.rank, TOP)
    targets = evidence.examples.target[kept]
    wins, overlaps, hits, depth = [], [], [], TOP
    for values, ranks in zip(group.values[METRIC], group.ranks, strict=True):
        student = ranks.take(kept).top_items
        assert student is not None  # noqa: S101 - always written
        depth = min(student.shape[1], teacher.shape[1], TOP)
        lists = teacher[:, :depth], student[:, :depth]
        wins.append(win_ratio(own, values[kept]))
        overlaps.append(overlap(*lists))
        hits.append(hit_rate_by_overlap(*lists, targets))
    return Agreement(
        wins=WinRatio(
            first=float(np.mean([one.first for one in wins])),
            second=float(np.mean([one.second for one in wins])),
            differing=round(float(np.mean([one.differing for one in wins]))),
        ),
        overlap=float(np.mean(overlaps)),
        hits=OverlapHits(
            both=float(np.mean([one.both for one in hits])), one=float(np.mean([one.one for one in hits]))
        ),
        depth=depth,
    )

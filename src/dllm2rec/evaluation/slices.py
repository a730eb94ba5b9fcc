"""Examples in groups: by how often training saw the target, and by the length of the history."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dllm2rec.data import Examples

UNSEEN = "unseen in training"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the examples.

    Attributes:
        name: what they have in common.
        rows: `[N]` bool, which they are.
    """

    name: str
    rows: NDArray[np.bool_]


def popularity_slices(examples: Examples, train_counts: NDArray[np.int64]) -> list[Slice]:
    """Group by how often the target occurs in training: never, then three groups of about equal size.

    Args:
        examples: N examples.
        train_counts: `[V]`.

    Returns:
        The groups that are not empty, fewer where counts repeat too much. Each example is in exactly one.
    """
    counts = train_counts[examples.target]
    slices = [Slice(name=UNSEEN, rows=counts == 0)]
    seen = counts[counts > 0]
    if len(seen):
        edges = np.unique(np.quantile(seen, np.linspace(0, 1, 4)[1:], method="lower"))
        low = 1
        for high in edges.tolist():
            name = f"seen {low} to {high} times" if high > low else f"seen {low} times"
            slices.append(Slice(name=name, rows=(counts >= low) & (counts <= high)))
            low = high + 1
    return [one for one in slices if one.rows.any()]


def history_slices(examples: Examples) -> list[Slice]:
    """Group by items in the history: 1-2, 3-5, 6-9, 10 and more. Empty groups are left out."""
    length = (examples.history != examples.num_items).sum(axis=1)
    groups = [(0, 2, "history of up to 2"), (3, 5, "history of 3 to 5"), (6, 9, "history of 6 to 9")]
    slices = [Slice(name=name, rows=(length >= low) & (length <= high)) for low, high, name in groups]
    slices.append(Slice(name="history of 10 and more", rows=length >= 10))
    return [one for one in slices if one.rows.any()]

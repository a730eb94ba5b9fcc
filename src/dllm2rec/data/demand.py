"""How the demand for each item moves with time, as far as training shows it: a softmax over all of it sees the mean."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dllm2rec.data.dataset import Dataset
from dllm2rec.data.splits import TrainOn

RECENT = 0.1
"""Share of the training events, the newest, that counts as recent."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What training says of each item's demand, beside how often it was chosen.

    Attributes:
        trend: `[V]` float32, `log((r + s) / (s (n + 1)))` of an item that was chosen n times, r of them among the
            newest share s of all events: 0 where demand is steady, positive where it grows; 0 for a new item.
        new: bool `[V]`, items that training never saw.
    """

    trend: NDArray[np.float32]
    new: NDArray[np.bool_]

    def shift(self, *, trend: float, new: float) -> NDArray[np.float32]:
        """Return what is added to the score of each item, `[V]`, under these two weights."""
        return (np.float32(trend) * self.trend + np.float32(new) * self.new).astype(np.float32)


def measure_demand(dataset: Dataset, train_on: TrainOn = "positions", *, recent: float = RECENT) -> Demand:
    """Count the training events of each item, all and the newest.

    Args:
        dataset: gives its training sequences, see `Dataset.training_sequences`.
        train_on: which of them.
        recent: share of the events that is recent.
    """
    items = dataset.training_events(train_on)
    newest = items[len(items) - max(1, round(recent * len(items))) :]
    chosen, lately = (np.bincount(some, minlength=dataset.num_items) for some in (items, newest))
    trend = np.log((lately + recent) / (recent * (chosen + 1)))
    new = chosen == 0
    return Demand(trend=np.where(new, 0.0, trend).astype(np.float32), new=new)

"""Counting inside a bundle: what stood near an item in training, as a sparse row for each item."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Which items stood near each, and how much that counts.

    Attributes:
        offsets: `[V + 1]`; what stood near item i is at `offsets[i]` to `offsets[i + 1]` of the others.
        items: `[N]` rows of the catalogue.
        weights: `[N]`, float32 or float16.
        decay: of a history item's weight, a step of age.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    weights: NDArray[np.floating]
    decay: float

    @classmethod
    def load(cls, file: Path, *, decay: float) -> "Neighbours":
        """Read what `save` wrote."""
        return cls(decay=decay, **load_file(file))

    def save(self, file: Path) -> None:
        """Write all but the decay."""
        save_file({"offsets": self.offsets, "items": self.items, "weights": self.weights}, file)

    def extended(self, count: int) -> "Neighbours":
        """Return the same with ``count`` more items at the end, which stood near nothing."""
        offsets = np.pad(self.offsets, (0, count), mode="edge")
        return Neighbours(offsets=offsets, items=self.items, weights=self.weights, decay=self.decay)

    def near(self, history: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what stood near the items of a history, rows of the catalogue with the newest last, and how much.

        An item is listed once for each item of the history that it stood near.
        """
        places = [slice(*self.offsets[[item, item + 1]]) for item in history]
        ages = range(len(history) - 1, -1, -1)
        items = [self.items[place] for place in places]
        weights = [self.weights[place] * self.decay**age for place, age in zip(places, ages, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *items]), np.concatenate([np.empty(0), *weights])

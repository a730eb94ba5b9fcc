"""References: scorers that need no training, so that nobody takes a weak student for a strong one.

Popularity, item-kNN over sessions, neighbours by text, a blend of the last two, and EASE (`ease.py`). Each is fitted to
the training sequences of a dataset in seconds, and can also be a teacher (`reference_teacher.py`).

A history weighs its items by age: the newest has weight 1, the one before `decay`, then `decay ** 2`, and so on.
Items of the history are not masked. All work on a batch is sparse or dense matrix products.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from dllm2rec.core.arrays import unit_rows
from dllm2rec.core.errors import UserError
from dllm2rec.core.settings import Settings
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import DECAY, Sequences
from dllm2rec.teachers.ease import EASESettings, fit_ease
from dllm2rec.teachers.histories import history_weights

Floats = NDArray[np.float32]


class PopularitySettings(Settings):
    """Score items by how often they were chosen.

    Attributes:
        recent: None counts all events of the training sequences; a share, such as 0.1, that newest part of them only.
    """

    kind: Literal["popularity"] = "popularity"
    recent: float | None = Field(default=None, gt=0, le=1)


class ItemKNNSettings(Settings):
    """Score items by how often they stand near the history's items in training sequences.

    Attributes:
        steps: greatest distance of two items in a sequence that counts as a co-occurrence; at distance s its weight
            is 1/s.
        backward: weight of a co-occurrence for recommending the earlier item after the later one.
        decay: of a history item's weight, a step of age.
        neighbours: keep that many neighbours of each item; None keeps all.
    """

    kind: Literal["knn"] = "knn"
    steps: int = Field(default=5, ge=1)
    backward: float = Field(default=0.5, ge=0)
    decay: float = Field(default=DECAY, gt=0, le=1)
    neighbours: int | None = Field(default=None, ge=1)


class TextSettings(Settings):
    """Score items by the cosine between their vectors and the history's, the columns of all standardised.

    Attributes:
        decay: of a history item's weight, a step of age.
    """

    kind: Literal["text"] = "text"
    decay: float = Field(default=DECAY, gt=0, le=1)


class BlendSettings(Settings):
    """Score items by item-kNN plus a weight times text neighbours.

    Attributes:
        knn: settings of the first.
        text: settings of the second.
        text_weight: what the second is multiplied by. None: chosen on validation before anything is fitted.
    """

    kind: Literal["blend"] = "blend"
    knn: ItemKNNSettings = ItemKNNSettings()
    text: TextSettings = TextSettings()
    text_weight: float | None = Field(default=None, ge=0)


ReferenceSettings = Annotated[
    PopularitySettings | ItemKNNSettings | TextSettings | BlendSettings | EASESettings, Field(discriminator="kind")
]


class Reference(Protocol):
    """Scores the catalogue after a history."""

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Score `[B, L]` histories, padded on the left with V. Returns `[B, V]`; larger is more likely."""


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """The same scores after every history: each item's share `[V]` of what was chosen."""

    share: Floats

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Repeat the shares for each of `[B, L]` histories. Returns `[B, V]`."""
        return np.repeat(self.share[None, :], len(history), axis=0)


@dataclass(frozen=True, kw_only=True)
class ItemKNN:
    """Sums the similarities of the history's items.

    Attributes:
        similarity: `[V, V]` sparse; row i says what follows item i.
        decay: of a history item's weight, a step of age.
    """

    similarity: sparse.csr_array
    decay: float

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Score `[B, L]` histories. Returns `[B, V]`."""
        weights = history_weights(history, num_items=self.similarity.shape[0], decay=self.decay)
        scores: Floats = (weights @ self.similarity).toarray()
        return scores

    def scaled(self, weight: float, *, num_items: int) -> "ItemKNN":
        """Return the same times a weight, for a catalogue that goes on with items which nothing followed."""
        old = self.similarity
        values = (old.data * weight).astype(np.float32)
        rows = np.pad(old.indptr, (0, num_items - old.shape[0]), mode="edge")
        similarity = sparse.csr_array((values, old.indices, rows), shape=(num_items, num_items))
        return ItemKNN(similarity=similarity, decay=self.decay)


@dataclass(frozen=True, kw_only=True)
class TextNeighbours:
    """Sums the cosines to the history's items.

    Attributes:
        vectors: `[V, D]`, rows of unit length.
        decay: of a history item's weight, a step of age.
    """

    vectors: Floats
    decay: float

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Score `[B, L]` histories. Returns `[B, V]`."""
        weights = history_weights(history, num_items=len(self.vectors), decay=self.decay)
        scores: Floats = (weights @ self.vectors) @ self.vectors.T
        return scores


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Item-kNN plus `text_weight` times text neighbours."""

    knn: ItemKNN
    text: TextNeighbours
    text_weight: float

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Score `[B, L]` histories. Returns `[B, V]`."""
        return self.knn.scores(history) + np.float32(self.text_weight) * self.text.scores(history)


def fit_reference(
    settings: ReferenceSettings,
    dataset: Dataset,
    *,
    item_vectors: Floats | None = None,
    sequences: Sequences | None = None,
) -> Reference:
    """Fit a reference to the training part of ``dataset``.

    Args:
        settings: which reference.
        dataset: gives training sequences and the size of the catalogue.
        item_vectors: `[V, D]`, such as a sentence encoder's; text neighbours need them.
        sequences: to fit to instead of all training sequences.

    Raises:
        UserError: item vectors are needed and absent, or of another catalogue's size; or EASE has too many items.
        ValueError: the weight of text in a blend is open.
    """
    sequences = dataset.training_sequences() if sequences is None else sequences
    match settings:
        case PopularitySettings():
            return fit_popularity(settings, sequences, num_items=dataset.num_items)
        case ItemKNNSettings():
            return fit_item_knn(settings, sequences, num_items=dataset.num_items)
        case TextSettings():
            return fit_text(settings, item_vectors, num_items=dataset.num_items)
        case BlendSettings():
            if settings.text_weight is None:
                raise ValueError("text_weight is open; choose it on validation first")
            return Blend(
                knn=fit_item_knn(settings.knn, sequences, num_items=dataset.num_items),
                text=fit_text(settings.text, item_vectors, num_items=dataset.num_items),
                text_weight=settings.text_weight,
            )
        case EASESettings():
            return fit_ease(settings, sequences, num_items=dataset.num_items)


def needs_vectors(settings: ReferenceSettings) -> bool:
    """Whether a reference reads item vectors."""
    return isinstance(settings, TextSettings | BlendSettings)


def fit_popularity(settings: PopularitySettings, sequences: Sequences, *, num_items: int) -> Popularity:
    """Count what the sequences hold: all of it, or the newest part, whoever's it is."""
    items = sequences.items
    if settings.recent is not None:
        items = sequences.in_time()[-max(1, round(settings.recent * len(items))) :]
    counts = np.bincount(items, minlength=num_items)
    return Popularity(share=(counts / max(1, counts.sum())).astype(np.float32))


def fit_item_knn(settings: ItemKNNSettings, sequences: Sequences, *, num_items: int) -> ItemKNN:
    """Compute the similarity of items.

    `similarity[i, j] = c[i, j] / sqrt((n_i + 1) (n_j + 1))`, where `n` counts occurrences in the sequences, and
    `c[i, j]` adds `1/s` wherever j stands s steps after i, and `backward/s` wherever it stands s steps before, for s
    up to `steps`. The added 1 keeps items that were seen once from being each other's perfect neighbours.

    Args:
        settings: steps, weights and bound.
        sequences: of training items.
        num_items: V.
    """
    together = (
        sparse.csr_array((np.full(len(rows), weight, np.float32), (rows, columns)), shape=(num_items, num_items))
        for rows, columns, weight in _pairs(settings, sequences)
    )
    similarity = reduce(add, together)  # one after the other: all at once are several times the sum
    counts = np.bincount(sequences.items, minlength=num_items)
    scale = (1 / np.sqrt(counts + 1.0)).astype(np.float32)
    similarity.data *= np.repeat(scale, np.diff(similarity.indptr)) * scale[similarity.indices]
    if settings.neighbours is not None:
        similarity = _nearest(similarity, settings.neighbours)
    return ItemKNN(similarity=similarity, decay=settings.decay)


def fit_text(settings: TextSettings, item_vectors: Floats | None, *, num_items: int) -> TextNeighbours:
    """Standardise the columns, so that no loud one decides, and scale to unit length; the mean vector becomes zero.

    Raises:
        UserError: no vectors, or not one for each of the ``num_items`` items.
    """
    if item_vectors is None:
        raise UserError(
            "text neighbours need item vectors; make them with `dllm2rec teach --teacher encoder` and name that "
            "knowledge"
        )
    if len(item_vectors) != num_items:
        raise UserError(f"{len(item_vectors)} item vectors for {num_items} items; use those of this dataset")
    return TextNeighbours(vectors=unit_rows(standardised(item_vectors)), decay=settings.decay)


def standardised(vectors: Floats) -> Floats:
    """Centre each column of `[V, D]` and scale it to unit variance; a constant one is only centred."""
    mean, deviation = column_scale(vectors)
    return ((vectors - mean) / deviation).astype(np.float32)


def column_scale(vectors: Floats) -> tuple[Floats, Floats]:
    """Return the mean of each column of `[V, D]` and its standard deviation, which is 1 where it is constant."""
    # in single precision a sum over many rows loses more than what tells a constant column
    mean, deviation = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, 1.0)
    return mean.astype(np.float32), deviation.astype(np.float32)


def _pairs(
    settings: ItemKNNSettings, sequences: Sequences
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], float]]:
    """Yield items, neighbours and the weight of all co-occurrences, forward and backward, a step at a time."""
    items = sequences.items
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    for step in range(1, settings.steps + 1):
        together = user[step:] == user[:-step]
        earlier, later = items[:-step][together], items[step:][together]
        yield earlier, later, 1 / step
        if settings.backward > 0:
            yield later, earlier, settings.backward / step


def _nearest(similarity: sparse.csr_array, neighbours: int) -> sparse.csr_array:
    """Keep the largest ``neighbours`` values of each row, ties by smaller column."""
    entries = similarity.tocoo()
    row, column = entries.coords
    order = np.lexsort((column, -entries.data, row))
    place = np.arange(len(order)) - similarity.indptr[row[order]]
    kept = order[place < neighbours]
    return sparse.csr_array((entries.data[kept], (row[kept], column[kept])), shape=similarity.shape)

"""Which training examples a teacher labels first, where it can't label all: a language model takes its time.

Each rule is a function that returns an order of the examples: a permutation of their rows. A budget takes its
beginning, so a greater budget adds to a smaller one's labels, and the same again is the same.

- `random`: evenly, by a hash of seed and `example_id`.
- `uncertain`: item-kNN is least sure. It is as sure as the score of its best item is high: on Amazon Toys the hit
  rate at 20 falls steadily from .37 in the surest tenth of the examples to .06 in the least sure, as it does by the
  entropy of a softmax of the scores; by their margin, or by the share of the best, it falls less.
- `disagreement`: the first 20 of item-kNN and of text neighbours have the fewest items in common. On Toys a third of
  the examples have none, of which item-kNN hits .05, and .24 of those that have three or more.
- `diverse`: from everywhere in the space of histories. Histories are put into buckets, see `diverse`, and each bucket
  gives one example in turn.
- `oldest`: in time order.

`disagreement` and `diverse` read item vectors; where there are none, items are alike that stand in the same histories.
(Popularity in place of text would say nothing: 94% of the examples on Toys have none of its 20 in common with
item-kNN.) No rule reads the target of an example. Counting does, so item-kNN judges an example only where it was fitted
to the users of other folds, as where it labels (`out_of_fold`). Ties are settled by the order of `random`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from dllm2rec.core.arrays import place_in_group, unit_rows
from dllm2rec.core.errors import UserError
from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import Examples, Sequences
from dllm2rec.data.splits import Split, TrainOn
from dllm2rec.teachers.histories import history_weights
from dllm2rec.teachers.reference_teacher import out_of_fold
from dllm2rec.teachers.references import (
    Floats,
    ItemKNNSettings,
    TextNeighbours,
    TextSettings,
    fit_item_knn,
    fit_text,
)

Rule = Literal["random", "uncertain", "disagreement", "diverse", "oldest"]
READ_VECTORS: tuple[Rule, ...] = ("disagreement", "diverse")
"""Rules that read item vectors where there are some."""
Order = NDArray[np.int64]
Parts = Iterable[tuple[NDArray[np.int64], Sequences]]
"""Rows of examples, and the sequences that what judges them may be fitted to; see `out_of_fold`."""

FOLDS = 5
TOP = 20
BATCH = 1024
_SCORES_AT_ONCE = 1 << 24
BUCKETS, SAMPLE, ROUNDS = 256, 20_000, 10
SKETCH = 128


def order(
    rule: Rule,
    dataset: Dataset,
    examples: Examples,
    *,
    seed: int,
    train_on: TrainOn = "examples",
    item_vectors: Floats | None = None,
) -> Order:
    """Order training examples by a rule.

    Args:
        rule: see above.
        dataset: gives the training sequences.
        examples: of its training part, in time order.
        seed: of everything random.
        train_on: see `Dataset.training_examples`; where ``examples`` come from.
        item_vectors: `[V, D]`, for `disagreement` and `diverse`.

    Returns:
        `[N]`, a permutation of the rows.
    """

    def parts() -> Parts:
        sequences = dataset.training_sequences(train_on)
        return out_of_fold(dataset, examples, sequences, train_on=train_on, folds=FOLDS)

    match rule:
        case "random":
            return random(examples, seed=seed)
        case "uncertain":
            return uncertain(examples, parts(), seed=seed)
        case "disagreement":
            return disagreement(examples, parts(), seed=seed, item_vectors=item_vectors)
        case "diverse":
            return diverse(examples, seed=seed, item_vectors=item_vectors)
        case "oldest":
            return np.arange(len(examples))


def random(examples: Examples, *, seed: int, purpose: str = "labels") -> Order:
    """Order evenly and the same for a seed; two examples keep their order whatever others there are.

    Args:
        examples: N of them.
        seed: of the order.
        purpose: another one gives an independent order.
    """
    key = [
        hashlib.blake2b(f"{seed} {purpose} {value}".encode(), digest_size=8).digest()
        for value in examples.example_id.tolist()
    ]
    return np.array(sorted(range(len(key)), key=key.__getitem__), dtype=np.int64)


def within(limit: int | None, examples: Examples, split: Split) -> None:
    """Check that a split has as many examples as are to be labelled.

    Raises:
        UserError: it has fewer.
    """
    if limit is not None and limit > len(examples):
        raise UserError(f"limits.{split}: {limit} is more than the {len(examples)} examples to label; lower it")


def uncertain(examples: Examples, parts: Parts, *, seed: int) -> Order:
    """Order by the score of item-kNN's best item, the smallest first.

    Args:
        examples: N of them.
        parts: cover all of them.
        seed: settles ties.
    """
    sure = np.zeros(len(examples), np.float32)
    with progress_bar("choosing (how sure item-kNN is)", len(examples)) as advance:
        for rows, scores in _scored(examples, parts):
            sure[rows] = scores.max(axis=1)
            advance(len(rows))
    return _smallest_first(sure, random(examples, seed=seed))


def disagreement(examples: Examples, parts: Parts, *, seed: int, item_vectors: Floats | None = None) -> Order:
    """Order by how many items the first 20 of item-kNN and of text neighbours have in common, the fewest first.

    What item-kNN knows no reason for, it does not list.

    Args:
        examples: N of them.
        parts: cover all of them.
        seed: settles ties, of which there are many.
        item_vectors: `[V, D]`; without, neighbours stand in the same histories.

    Raises:
        UserError: the item vectors are of another catalogue's size.
    """
    text = _neighbours(examples, item_vectors, seed=seed)
    common = np.zeros(len(examples), np.int64)
    with progress_bar("choosing (where neighbours disagree)", len(examples)) as advance:
        for rows, scores in _scored(examples, parts):
            listed = _best(scores)
            listed[np.take_along_axis(scores, listed, axis=1) <= 0] = -1
            other = _best(text.scores(examples.history[rows]))
            common[rows] = (listed[:, :, None] == other[:, None, :]).sum(axis=(1, 2))
            advance(len(rows))
    return _smallest_first(common, random(examples, seed=seed))


def diverse(examples: Examples, *, seed: int, item_vectors: Floats | None = None) -> Order:
    """Order so that every beginning is spread over the space of histories.

    A history is the decayed mean of its items' vectors, at unit length. k-means on a sample, begun with histories each
    of which is the farthest from those before, makes buckets, as many as the root of N, at most 256; then each bucket
    gives one example in turn, by the order of `random`. Time and memory grow with N only as one pass over it does.

    Args:
        examples: N of them.
        seed: of the sample and of the order within a bucket.
        item_vectors: `[V, D]`; without, items are alike that stand in the same histories.

    Raises:
        UserError: the item vectors are of another catalogue's size.
    """
    drawn = random(examples, seed=seed)
    items = _neighbours(examples, item_vectors, seed=seed)

    def histories(rows: Order) -> Floats:
        weights = history_weights(examples.history[rows], num_items=examples.num_items, decay=items.decay)
        return unit_rows(weights @ items.vectors)

    centres = _centres(histories(drawn[:SAMPLE]), min(BUCKETS, int(np.ceil(np.sqrt(len(drawn))))))
    bucket = np.zeros(len(drawn), np.int64)
    with progress_bar("choosing (from everywhere)", len(drawn)) as advance:
        for rows in _batches(np.arange(len(drawn))):
            bucket[rows] = (histories(rows) @ centres.T).argmax(axis=1)
            advance(len(rows))
    return drawn[_in_turn(bucket[drawn])]


def _in_turn(bucket: NDArray[np.int64]) -> Order:
    """Order `[N]` rows so that each bucket gives its first, then each its second, and so on."""
    grouped = np.argsort(bucket, kind="stable")
    turn = np.empty_like(grouped)
    turn[grouped] = place_in_group(np.bincount(bucket))
    return np.lexsort((bucket, turn))


def _scored(examples: Examples, parts: Parts) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield rows of examples, a batch at a time, with the scores `[B, V]` of item-kNN that may judge them."""
    for rows, sequences in parts:
        knn = fit_item_knn(ItemKNNSettings(), sequences, num_items=examples.num_items)
        for some in _batches(rows, most=_SCORES_AT_ONCE // examples.num_items):
            yield some, knn.scores(examples.history[some])


def _batches(rows: NDArray[np.int64], *, most: int = BATCH) -> Iterator[NDArray[np.int64]]:
    size = max(1, min(BATCH, most))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _smallest_first(value: NDArray[np.generic], drawn: Order) -> Order:
    return drawn[np.argsort(value[drawn], kind="stable")]


def _best(scores: Floats) -> NDArray[np.int64]:
    """List the `TOP` best columns of `[B, V]`, in any order; a full sort of so many would take minutes."""
    best: NDArray[np.int64] = torch.from_numpy(scores).topk(min(TOP, scores.shape[1])).indices.numpy()
    return best


def _neighbours(examples: Examples, item_vectors: Floats | None, *, seed: int) -> TextNeighbours:
    """Fit neighbours to item vectors, or where there are none to the items that stand together in histories.

    For the latter each item's row of co-occurrences is projected at random, which keeps cosines about as they are. As
    in item-kNN, an item counts less the more histories hold it.
    """
    if item_vectors is None:
        held = history_weights(examples.history, num_items=examples.num_items, decay=1.0)
        scale = 1 / np.sqrt(held.sum(axis=0) + 1)
        directions = numpy_generator(seed, "co-occurrence").normal(size=(examples.num_items, SKETCH))
        item_vectors = unit_rows(held.T @ (held @ (scale[:, None] * directions).astype(np.float32)))
    return fit_text(TextSettings(), item_vectors, num_items=examples.num_items)


def _centres(vectors: Floats, count: int) -> Floats:
    """Find the centres `[count, D]` of k-means by cosine over `[N, D]` rows of unit length."""
    centres = vectors[_farthest_first(vectors, count)]
    for _ in range(ROUNDS):
        nearest = (vectors @ centres.T).argmax(axis=1)
        shape = (count, len(vectors))
        members = sparse.csr_array((np.ones(len(vectors), np.float32), (nearest, np.arange(len(vectors)))), shape=shape)
        centres = unit_rows(members @ vectors)
    return centres


def _farthest_first(vectors: Floats, count: int) -> list[int]:
    """List ``count`` rows, from the first on, each with the smallest cosine to its nearest before it."""
    chosen = [0]
    nearest = vectors @ vectors[0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmin()))
        np.maximum(nearest, vectors @ vectors[chosen[-1]], out=nearest)
    return chosen

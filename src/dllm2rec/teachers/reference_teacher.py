"""A reference as a teacher, through the same contract as a language model: cheap labels to compare or to try with."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.core.tensors import best_items
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import Examples, Sequences
from dllm2rec.data.splits import TrainOn
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.teachers.references import Floats, Reference, ReferenceSettings, fit_reference, needs_vectors

_SCORES_AT_ONCE = 1 << 24


def label_with_reference(
    dataset: Dataset,
    settings: ReferenceSettings,
    *,
    examples: Examples,
    out: Path,
    item_vectors: Floats | None = None,
    train_on: TrainOn = "positions",
    folds: int = 1,
    depth: int = 100,
    batch_size: int = 1024,
    known: Labels | None = None,
) -> Knowledge:
    """Let a reference be the teacher: its best items are the list, and its negated scores the distances.

    Of items with equal scores those come first that were chosen oftener: counting that knows of fewer items than a list
    is long fills it up with popular ones.

    A reference that has counted an example knows its answer. So that a student does not learn to trust that, the users
    are dealt into ``folds``, and what lies in a training sequence is labelled by a reference that was fitted to the
    users of the other folds: it is fitted once and once more for each fold. Started again after an interruption, it
    labels what has no label yet.

    Args:
        dataset: to fit to.
        settings: which reference.
        examples: of ``dataset``, to be labelled.
        out: directory of the knowledge.
        item_vectors: `[V, D]`, for text neighbours; they become part of the knowledge.
        train_on: which sequences the reference is fitted to, see `Dataset.training_sequences`.
        folds: how many; 1 labels everything by one reference that was fitted to all.
        depth: items listed, K; the whole catalogue where it is smaller.
        batch_size: examples a shard.
        known: labels that are taken over, so that only what they leave is labelled.

    Raises:
        UserError: item vectors are needed, EASE has too many items, or ``out`` holds something else.
    """
    used = item_vectors if needs_vectors(settings) else None
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher=settings.kind,
        revision="" if used is None else hashlib.sha256(np.ascontiguousarray(used).data).hexdigest()[:16],
        settings={**settings.model_dump(mode="json"), "train_on": train_on, "folds": folds},
        depth=min(depth, dataset.num_items),
        vector_size=None if used is None else used.shape[1],
    )
    sequences = dataset.training_sequences(train_on)
    fitted = partial(fit_reference, settings, dataset, item_vectors=item_vectors)
    scorer = fitted(sequences=sequences)  # before anything is written: it may refuse
    writer = KnowledgeWriter(out, manifest)
    if used is not None and not writer.has_item_vectors():
        writer.write_item_vectors(used)
    if known is not None and not len(writer.labelled_ids()):
        writer.append(known)
    waiting = examples.take(~np.isin(examples.example_id, writer.labelled_ids()))
    parts = out_of_fold(dataset, waiting, sequences, train_on=train_on, folds=folds)
    with progress_bar(f"labelling ({settings.kind})", len(examples), completed=len(examples) - len(waiting)) as advance:
        for rows, counted in parts:
            if counted is not sequences:  # after those whose reference is fitted to all
                del scorer  # it may be large: one at a time
                scorer = fitted(sequences=counted)
            order = np.argsort(-np.bincount(counted.items, minlength=dataset.num_items), kind="stable")
            for start in range(0, len(rows), batch_size):
                some = waiting.take(rows[start : start + batch_size])
                writer.append(_label(scorer, some, manifest.depth, order))
                advance(len(some))
    return Knowledge.load(out)


def text_weight_of(knowledge: Knowledge) -> float | None:
    """Return the weight of text in the blend that labelled; None where another teacher did."""
    weight = knowledge.manifest.settings.get("text_weight") if knowledge.manifest.teacher == "blend" else None
    return float(weight) if isinstance(weight, int | float) else None


def out_of_fold(
    dataset: Dataset, examples: Examples, sequences: Sequences, *, train_on: TrainOn, folds: int
) -> Iterator[tuple[NDArray[np.int64], Sequences]]:
    """Yield rows of examples, with the sequences that a reference may have counted which judges them.

    The users are dealt into ``folds``. What lies in a training sequence is for a reference that was fitted to the users
    of the other folds; what lies in none, or everything where there is one fold, for one that was fitted to all.

    Args:
        dataset: that the examples are of.
        examples: each is in one part.
        sequences: of all users, by ``train_on``; they are yielded themselves where nothing is left out.
        train_on: see `Dataset.training_sequences`.
        folds: how many.
    """
    of_user = numpy_generator(0, "folds").integers(0, folds, len(sequences))
    of_example = np.full(len(examples), -1)
    if folds > 1:
        training = dataset.training_examples("positions" if train_on == "examples" else train_on).example_id
        of_example = np.where(np.isin(examples.example_id, training), of_user[examples.user], -1)
    for number in np.unique(of_example):
        yield np.flatnonzero(of_example == number), sequences if number < 0 else sequences.of(of_user != number)


def _label(reference: Reference, examples: Examples, depth: int, order: NDArray[np.int64]) -> Labels:
    """Label examples, a few at a time where the catalogue is large; ties by ``order`` `[V]`."""
    listed, distances, own = [], [], []
    for some in examples.batches(max(1, _SCORES_AT_ONCE // len(order))):
        scores = reference.scores(some.history)
        items = order[best_items(torch.from_numpy(scores[:, order]), depth).numpy()]
        listed.append(items.astype(np.int32))
        distances.append(-np.take_along_axis(scores, items, axis=1))
        own.append(-scores[np.arange(len(some)), some.target])
    return Labels(
        example_id=examples.example_id,
        ranked_items=np.concatenate(listed),
        distances=np.concatenate(distances),
        target_distance=np.concatenate(own),
        generated_text=[""] * len(examples),
    )

"""A reference as a teacher, through the same contract as a language model: cheap labels to compare or to try with."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.progress import progress_bar
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import Examples
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.teachers.references import (
    Floats,
    ItemKNNSettings,
    PopularitySettings,
    ReferenceSettings,
    Scorer,
    fit_reference,
)


def label_with_reference(
    dataset: Dataset,
    settings: ReferenceSettings,
    *,
    examples: Examples,
    out: Path,
    item_vectors: Floats | None = None,
    depth: int = 100,
    batch_size: int = 1024,
) -> Knowledge:
    """Let a reference be the teacher: its best items are the list, and its negated scores the distances.

    Started again after an interruption, it labels what has no label yet.

    Args:
        dataset: to fit to.
        settings: which reference.
        examples: of ``dataset``, to be labelled.
        out: directory of the knowledge.
        item_vectors: `[V, D]`, for text neighbours; they are not stored with the labels.
        depth: items listed, K; the whole catalogue where it is smaller.
        batch_size: examples a shard.

    Raises:
        UserError: item vectors are needed, or ``out`` holds something else.
    """
    scorer = fit_reference(settings, dataset, item_vectors=item_vectors)
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher=settings.kind,
        model="",
        revision=_vectors_hash(settings, item_vectors),
        seed=0,
        settings=settings.model_dump(mode="json"),
        depth=min(depth, dataset.num_items),
        vector_size=None,
        distance_scale=None,
    )
    writer = KnowledgeWriter(out, manifest)
    open_rows = np.flatnonzero(~np.isin(examples.example_id, writer.labelled_ids()))
    with progress_bar(
        f"labelling ({settings.kind})", len(examples), completed=len(examples) - len(open_rows)
    ) as advance:
        for start in range(0, len(open_rows), batch_size):
            part = examples.take(open_rows[start : start + batch_size])
            writer.append(_label(scorer, part, manifest.depth))
            advance(len(part))
    return Knowledge.load(out)


def best_items(scores: Floats, depth: int) -> NDArray[np.int32]:
    """List the ``depth`` best columns of `[B, V]`, best first, ties by smaller index. Returns `[B, K]`."""
    bound = -np.partition(-scores, depth - 1, axis=1)[:, depth - 1 : depth]
    above, equal = scores > bound, scores == bound
    room = depth - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
    items = np.nonzero(chosen)[1].reshape(len(scores), depth)
    order = np.argsort(-np.take_along_axis(scores, items, axis=1), axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1).astype(np.int32)


def _label(scorer: Scorer, examples: Examples, depth: int) -> Labels:
    scores = scorer.scores(examples.history)
    items = best_items(scores, depth)
    return Labels(
        example_id=examples.example_id,
        ranked_items=items,
        distances=-np.take_along_axis(scores, items, axis=1),
        target_distance=-scores[np.arange(len(examples)), examples.target],
        generated_text=[""] * len(examples),
    )


def _vectors_hash(settings: ReferenceSettings, item_vectors: Floats | None) -> str:
    if item_vectors is None or isinstance(settings, PopularitySettings | ItemKNNSettings):
        return ""
    return hashlib.sha256(np.ascontiguousarray(item_vectors).data).hexdigest()[:16]

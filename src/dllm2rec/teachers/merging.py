"""The labels of several teachers become those of one, through the same contract.

Each source is calibrated, and the mixture weighted (`mixture.py`), on the validation examples that it labelled: test
examples are labelled by what was found there, and nothing is learned from them. The mixture's distances are
``-log p``: a student's temperature of 1 is the calibrated one.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.progress import progress_bar
from dllm2rec.core.settings import Settings
from dllm2rec.data import Dataset, Examples
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.knowledge.align import align, require_same_dataset
from dllm2rec.knowledge.confidence import calibration_error, likeliest_temperature
from dllm2rec.teachers.mixture import fit_weights, mix, opinion
from dllm2rec.teachers.references import standardised

MERGED = "merged"
MergedVectors = Literal["first", "concatenated"]


class MergedSource(Settings):
    """One of the teachers that were merged.

    Attributes:
        hash: content hash of its knowledge.
        teacher: kind of the teacher.
        model: name of its model; empty where it has none.
        temperature: under which the true next items of its validation examples are likeliest; None for one that lists
            nothing and brings its item vectors alone.
        weight: its share in the mixture.
        depth: items that its labels list; 0 also where merged before this was noted.
    """

    hash: str
    teacher: str
    model: str
    temperature: float | None
    weight: float
    depth: int = 0

    @property
    def name(self) -> str:
        """Kind and model."""
        return f"{self.teacher} {self.model}".strip()


class Mixture(Settings):
    """What was merged and how; the settings in the manifest of merged knowledge.

    Attributes:
        sources: in the order in which they were named.
        vectors: see `merge`.
        depth: items that a merged label lists; 0 where merged before this was noted.
        validation_examples: how many were labelled by any source.
        calibration_error: of the mixture's best item on those, see `calibration_error`.
    """

    sources: tuple[MergedSource, ...]
    vectors: MergedVectors
    depth: int = 0
    validation_examples: int
    calibration_error: float


def mixture_of(knowledge: Knowledge) -> Mixture | None:
    """Return what was merged and how; None for the knowledge of one teacher."""
    if knowledge.manifest.teacher != MERGED:
        return None
    return Mixture.model_validate(knowledge.manifest.settings)


def merge(
    dataset: Dataset,
    sources: Sequence[Knowledge],
    *,
    out: Path,
    depth: int = 100,
    vectors: MergedVectors = "first",
    batch_size: int = 1024,
) -> Knowledge:
    """Merge knowledge of one dataset. Started again after an interruption, it labels what has no label yet.

    Args:
        dataset: of all sources.
        sources: what is merged; an example has a label where any of them has one. One that lists no items brings its
            item vectors, where those of all are taken.
        out: directory of the merged knowledge.
        depth: items listed, K; no more than the shortest list of a source, which a label may consist of.
        vectors: `first`: the item vectors of the first source that has some; `concatenated`: those of all sources, each
            column centred and scaled to unit variance.
        batch_size: examples a shard.

    Raises:
        UserError: a source is of another dataset, occurs twice, brings nothing or labels no validation example, no
            source lists items, or ``out`` holds something else.
    """
    _check(dataset, sources, vectors)
    listing = [one for one in sources if one.manifest.depth]
    depth = min(depth, *(one.manifest.depth for one in listing))
    found = dict(zip([one.path for one in listing], _calibrate(dataset, listing), strict=True))
    label = partial(_label, dataset, listing, list(found.values()), depth)
    validation = _labelled(dataset, listing, dataset.examples("validation"))
    item_vectors = _vectors(sources, vectors)
    merged = tuple(found.get(one.path, _source(one, temperature=None, weight=0.0)) for one in sources)
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher=MERGED,
        model=" + ".join(one.name for one in merged),
        settings=Mixture(
            sources=merged,
            vectors=vectors,
            depth=depth,
            validation_examples=len(validation),
            calibration_error=_error([label(some) for some in validation.batches(batch_size)], validation),
        ).model_dump(mode="json"),
        depth=depth,
        vector_size=None if item_vectors is None else item_vectors.shape[1],
    )
    writer = KnowledgeWriter(out, manifest)
    if item_vectors is not None and not writer.has_item_vectors():
        writer.write_item_vectors(item_vectors)
    examples = _labelled(dataset, listing, _everything(dataset))
    waiting = examples.take(~np.isin(examples.example_id, writer.labelled_ids()))
    with progress_bar("merging", len(examples), completed=len(examples) - len(waiting)) as advance:
        for some in waiting.batches(batch_size):
            writer.append(label(some))
            advance(len(some))
    return Knowledge.load(out)


def _check(dataset: Dataset, sources: Sequence[Knowledge], vectors: MergedVectors) -> None:
    validation = dataset.examples("validation")
    seen: dict[str, Path] = {}
    for one in sources:
        require_same_dataset(one, dataset)
        lists = one.manifest.depth > 0
        if not lists and (vectors == "first" or one.item_vectors is None):
            raise UserError(
                f"{one.path}: lists no items, so there are no labels to merge; leave it out, or, for its item vectors "
                "beside those of the others, set vectors=concatenated"
            )
        if lists and not (align(one, dataset, validation) >= 0).any():
            raise UserError(
                f"{one.path}: labels no validation example, and on those its temperature and weight are found; let it "
                "label some (limits.validation; imported labels need some, too), or leave it out"
            )
        if one.content_hash in seen:
            raise UserError(f"{one.path}: the same knowledge as {seen[one.content_hash]}; merge different teachers")
        seen[one.content_hash] = one.path
    if not any(one.manifest.depth for one in sources):
        raise UserError(f"{sources[0].path}: no source lists items; merge with one that does, such as --teacher blend")


def _calibrate(dataset: Dataset, sources: Sequence[Knowledge]) -> tuple[MergedSource, ...]:
    """Find each source's temperature, and then the weights, on validation examples alone."""
    validation = _labelled(dataset, sources, dataset.examples("validation"))
    rows = _rows(dataset, sources, validation)
    share, temperatures = np.zeros(rows.shape), []
    for one, row, column in zip(sources, rows.T, share.T, strict=True):
        known = row >= 0
        temperature = likeliest_temperature(
            ranked_items=one.labels.ranked_items[row[known]],
            distances=one.labels.distances[row[known]],
            target=validation.target[known],
            num_items=dataset.num_items,
        )
        said = opinion(one.labels, row, temperature=temperature, num_items=dataset.num_items)
        column[known] = said.shares.of(validation.target[known])
        temperatures.append(temperature)
    weights = fit_weights(share, rows >= 0)
    return tuple(
        _source(one, temperature=temperature, weight=weight)
        for one, temperature, weight in zip(sources, temperatures, weights.tolist(), strict=True)
    )


def _source(one: Knowledge, *, temperature: float | None, weight: float) -> MergedSource:
    return MergedSource(
        hash=one.content_hash,
        teacher=one.manifest.teacher,
        model=one.manifest.model,
        temperature=temperature,
        weight=weight,
        depth=one.manifest.depth,
    )


def _label(
    dataset: Dataset, sources: Sequence[Knowledge], found: Sequence[MergedSource], depth: int, examples: Examples
) -> Labels:
    """Label examples that some source labelled."""
    opinions = [
        opinion(one.labels, row, temperature=how.temperature, num_items=dataset.num_items)
        for one, how, row in zip(sources, found, _rows(dataset, sources, examples).T, strict=True)
        if how.temperature is not None
    ]
    weights = np.array([how.weight for how in found])
    mixed = mix(opinions, weights, target=examples.target, depth=depth, num_items=dataset.num_items)
    return Labels(
        example_id=examples.example_id,
        ranked_items=mixed.items.astype(np.int32),
        distances=-np.log(mixed.share).astype(np.float32),
        target_distance=-np.log(mixed.target_share).astype(np.float32),
        generated_text=[""] * len(examples),
    )


def _error(parts: Sequence[Labels], examples: Examples) -> float:
    """Measure how far the probability of the best item is from its hits; ``parts`` label ``examples``, in order."""
    best = np.concatenate([part.ranked_items[:, 0] for part in parts])
    confidence = np.exp(-np.concatenate([part.distances[:, 0] for part in parts]))
    return calibration_error(confidence, best == examples.target)


def _rows(dataset: Dataset, sources: Sequence[Knowledge], examples: Examples) -> NDArray[np.int64]:
    """Find each example in each source's labels; -1 where it has none. Returns `[N, M]`."""
    return np.stack([align(one, dataset, examples) for one in sources], axis=1)


def _labelled(dataset: Dataset, sources: Sequence[Knowledge], examples: Examples) -> Examples:
    """Return the examples that some source labelled."""
    return examples.take(np.flatnonzero((_rows(dataset, sources, examples) >= 0).any(axis=1)))


def _everything(dataset: Dataset) -> Examples:
    """Return all examples that a teacher may have labelled, each once."""
    parts = [dataset.training_examples("before-cut"), dataset.examples("validation"), dataset.examples("test")]
    examples = Examples.join(parts)
    return examples.take(np.unique(examples.example_id, return_index=True)[1])


def _vectors(sources: Sequence[Knowledge], vectors: MergedVectors) -> NDArray[np.float32] | None:
    present = [one.item_vectors for one in sources if one.item_vectors is not None]
    if not present:
        return None
    if vectors == "first":
        return present[0]
    return np.concatenate([standardised(one) for one in present], axis=1)

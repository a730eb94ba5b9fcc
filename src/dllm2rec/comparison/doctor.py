"""Verb `doctor`: what a teacher is worth, in numbers and plain words, before anyone trains on it."""

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from dllm2rec.comparison.diagnosis import diagnose
from dllm2rec.comparison.evidence import Taught, judge_teacher, left_out, metric_values
from dllm2rec.comparison.examination import Calibration, Coverage, Examination, Hits, Rival, Texts, Vectors, Weights
from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, Examples, Split, TrainOn
from dllm2rec.data.splits import SPLITS
from dllm2rec.distillation.distances import normalise_distances
from dllm2rec.distillation.weights import sequence_confidence
from dllm2rec.evaluation.agreement import hit_rate_by_overlap, overlap, win_ratio
from dllm2rec.evaluation.metrics import METRIC, TOP
from dllm2rec.evaluation.ranks import Ranks
from dllm2rec.evaluation.references import REFERENCES, Follows, reference_ranks
from dllm2rec.evaluation.significance import holm, paired_permutation_test
from dllm2rec.knowledge.align import align
from dllm2rec.knowledge.confidence import calibration_error, likeliest_temperature, reliability, shares
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.merging import mixture_of
from dllm2rec.teachers.reference_teacher import text_weight_of
from dllm2rec.workflow.evaluating import evaluate
from dllm2rec.workflow.labelling import seconds_per_1000, unfinished_texts
from dllm2rec.workflow.runs import Run

ENOUGH = 100
"""Labelled examples of a split without which nothing is said of calibration."""
RIVALS = ("popularity", "item-kNN")
PROBABILITIES = {"retrieval", "merged"}
"""Teachers whose distances are ``-log p``."""
OWN_EXAMPLES = {"bigrec", "imported"}
"""Teachers that label the split's own training examples."""


def examine(knowledge: Knowledge, dataset: Dataset, *, student: Run | None = None, test: bool = False) -> Examination:
    """Examine a teacher's knowledge on validation: whether to train on it is a choice, too.

    Args:
        knowledge: of the teacher.
        dataset: that it labelled.
        student: a plain student to compare with; without one nothing is trained, and the page says so.
        test: look at the test examples, too: at hits there, and at how sure the teacher is of them.

    Raises:
        UserError: knowledge of another dataset, or the student was trained on another one, or taught.
    """
    if student is not None and student.config.knowledge is not None:
        raise UserError(f"{student.path}: a teacher had a part in it ({student.config.method}); give a plain run")
    examples = {split: dataset.examples(split) for split in SPLITS}
    examples["train"] = dataset.training_examples(labels_among(knowledge))
    rows = {split: align(knowledge, dataset, some) for split, some in examples.items()}
    coverage = {split: Coverage(labelled=int((found >= 0).sum()), examples=len(found)) for split, found in rows.items()}
    manifest = knowledge.manifest
    facts = {
        "dataset": dataset.manifest.name,
        "teacher": manifest.teacher,
        "model": manifest.model,
        "depth": manifest.depth,
        "coverage": coverage,
        "hits": {split: _hits(knowledge, dataset, examples[split], rows[split]) for split in SPLITS[:2]},
        "rivals": _rivals(knowledge, dataset, student, SPLITS[1:] if test else SPLITS[1:2]),
        "weights": _weights(knowledge, rows["train"]),
        "calibration": _calibration(knowledge, dataset) if test else None,
        "texts": _texts(knowledge, dataset),
        "vectors": _vectors(knowledge),
        "repeated_titles": len(dataset.titles) - len(set(dataset.titles)),
        "num_items": dataset.num_items,
        "seconds_per_1000": seconds_per_1000(knowledge),
        "student": student.config.label if student else None,
        "mixture": mixture_of(knowledge),
        "text_weight": text_weight_of(knowledge),
    }
    examination = Examination.model_validate({**facts, "findings": ()})
    return examination.model_copy(update={"findings": diagnose(examination)})


def labels_among(knowledge: Knowledge) -> TrainOn:
    """Return which training examples a teacher labels, all of them or some, see `Dataset.training_examples`.

    Who writes titles labels the split's own examples, a reference those that it was told to, all others positions
    before the cut.
    """
    manifest, mixture = knowledge.manifest, mixture_of(knowledge)
    teachers = {manifest.teacher} if mixture is None else {source.teacher for source in mixture.sources}
    if teachers <= OWN_EXAMPLES:
        return "examples"
    return cast("TrainOn", manifest.settings.get("train_on", "before-cut"))


def _hits(knowledge: Knowledge, dataset: Dataset, examples: Examples, rows: NDArray[np.int64]) -> Hits:
    """Count hits where whoever counts can hit; validation has items that training has not."""
    kept = (rows >= 0) & (dataset.train_counts("before-cut")[examples.target] > 0)
    hit = (knowledge.labels.ranked_items[rows[kept], :TOP] == examples.target[kept, None]).any(axis=1)
    return Hits(examples=len(hit), share=float(hit.mean()) if len(hit) else 0.0)


def _rivals(knowledge: Knowledge, dataset: Dataset, student: Run | None, splits: Sequence[Split]) -> list[Rival]:
    """The teacher against each rival, on the labelled examples of each split."""
    rivals = []
    train_on: TrainOn = "before-cut" if labels_among(knowledge) == "before-cut" else "positions"  # as the teacher's
    for split in splits:
        examples = dataset.examples(split)
        taught = judge_teacher(knowledge, dataset, examples)
        if taught is None:
            continue
        kept = taught.labelled
        found = []
        for name in RIVALS:
            ranks = reference_ranks(REFERENCES[name], dataset, examples.take(kept), train_on=train_on)
            found.append(_rival(taught, ranks, name, split, examples))
        if student is not None:
            evaluate(student, split=split, dataset=dataset)
            ranks = student.read_ranks(split).take(kept)
            found.append(_rival(taught, ranks, student.config.label, split, examples, without=left_out([student])))
        tested = [rival for rival in found if rival.differing]
        adjusted = iter(holm([rival.p_value for rival in tested]))
        rivals += [one.model_copy(update={"p_value": next(adjusted)}) if one.differing else one for one in found]
    return rivals


def _rival(
    taught: Taught, other: Ranks, name: str, split: Split, examples: Examples, *, without: Follows = "nothing"
) -> Rival:
    own_ranks, examples = taught.ranks_without(without, examples), examples.take(taught.labelled)
    own, theirs = metric_values(own_ranks), metric_values(other)
    wins = win_ratio(own[METRIC], theirs[METRIC])
    depth = min(TOP, taught.knowledge.manifest.depth)
    assert own_ranks.top_items is not None and other.top_items is not None  # noqa: S101, PT018 - both were asked for
    first, second = own_ranks.top_items[:, :depth], other.top_items[:, :depth]
    hits = hit_rate_by_overlap(first, second, examples.target)
    return Rival(
        name=name,
        split=split,
        left_out=without,
        examples=len(examples),
        teacher={metric: float(values.mean()) for metric, values in own.items()},
        rival={metric: float(values.mean()) for metric, values in theirs.items()},
        p_value=paired_permutation_test(
            own[METRIC],
            theirs[METRIC],
            user=examples.user,
            generator=numpy_generator(0, "doctor", split, name),
        ),
        teacher_wins=wins.first,
        differing=wins.differing,
        overlap=overlap(first, second),
        hits_both=hits.both,
        hits_one=hits.one,
    )


def _weights(knowledge: Knowledge, rows: NDArray[np.int64]) -> Weights | None:
    """The spread of the confidence of the labelled training sequences (eq. 7)."""
    weights = confidence_weights(knowledge, rows)
    if weights is None:
        return None
    distances = knowledge.labels.target_distance[rows[rows >= 0]]
    tenth = max(1, len(weights) // 10)
    return Weights(
        sequences=len(weights),
        distance_low=float(np.quantile(distances, 0.05)),
        distance_median=float(np.median(distances)),
        distance_high=float(np.quantile(distances, 0.95)),
        variation=float(weights.std() / weights.mean()),
        effective=float(weights.sum() ** 2 / (weights**2).sum() / len(weights)),
        top_tenth=float(np.sort(weights)[-tenth:].sum() / weights.sum()),
    )


def confidence_weights(knowledge: Knowledge, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the confidence weights of labelled training sequences (eq. 7), `[N]` with mean 1; None without labels.

    Args:
        knowledge: of a teacher.
        rows: for each training example its row in the labels, or -1, from `align`.
    """
    used = rows[rows >= 0]
    if len(used) == 0 or knowledge.manifest.depth == 0:
        return None
    distances = normalise_distances(torch.from_numpy(knowledge.labels.target_distance[used]))
    weights: NDArray[np.float64] = sequence_confidence(distances, size=1).numpy().astype(np.float64)
    return weights


def _calibration(knowledge: Knowledge, dataset: Dataset) -> Calibration | None:
    """Hold the probabilities of a teacher against what came in test.

    Who gives none has distances, of which validation makes probabilities.
    """
    labelled = []
    for split in SPLITS[1:]:
        examples = dataset.examples(split)
        rows = align(knowledge, dataset, examples)
        kept = np.flatnonzero(rows >= 0)
        if len(kept) < ENOUGH or knowledge.manifest.depth == 0:
            return None
        labelled.append((knowledge.labels.take(rows[kept]), examples.target[kept]))
    (before, chosen), (labels, target) = labelled
    temperature = None
    if knowledge.manifest.teacher in PROBABILITIES:
        probability = np.exp(-labels.distances.astype(np.float64))
    else:
        temperature = likeliest_temperature(
            ranked_items=before.ranked_items, distances=before.distances, target=chosen, num_items=dataset.num_items
        )
        probability = shares(
            ranked_items=labels.ranked_items,
            distances=labels.distances,
            temperature=temperature,
            num_items=dataset.num_items,
        ).listed
    hits = labels.ranked_items == target[:, None]
    return Calibration(
        temperature=temperature,
        examples=len(target),
        confidence=float(probability[:, 0].mean()),
        right=float(hits[:, 0].mean()),
        error=calibration_error(probability[:, 0], hits[:, 0]),
        bins=tuple(reliability(probability, hits)),
    )


def _texts(knowledge: Knowledge, dataset: Dataset) -> Texts | None:
    texts = [" ".join(text.split()) for text in knowledge.labels.generated_text]
    if not any(texts):
        return None
    titles = {title.casefold() for title in dataset.titles}
    (commonest, times), *_ = Counter(texts).most_common(1)
    return Texts(
        texts=len(texts),
        titles=sum(text.casefold() in titles for text in texts) / len(texts),
        distinct=len(set(texts)) / len(texts),
        empty=texts.count("") / len(texts),
        unfinished=unfinished_texts(knowledge) / len(texts),
        commonest=commonest,
        commonest_share=times / len(texts),
    )


def _vectors(knowledge: Knowledge) -> Vectors | None:
    """Item vectors that can't tell items apart; what is not finite is refused when knowledge is read."""
    vectors = knowledge.item_vectors
    if vectors is None:
        return None
    mean, deviation = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    return Vectors(
        items=len(vectors),
        size=vectors.shape[1],
        constant_columns=int((deviation <= 1e-6 * (1 + np.abs(mean))).sum()),
        repeated=len(vectors) - len(np.unique(vectors, axis=0)),
        zero=int((~vectors.any(axis=1)).sum()),
    )

"""What tables and reports are made of: ranks of students, references and teachers on the same examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_json
from dllm2rec.core.settings import differing
from dllm2rec.data import Dataset, Examples, Split, TrainOn
from dllm2rec.evaluation.latency import seconds_per_1000 as latency
from dllm2rec.evaluation.metrics import HITS, METRIC, METRICS, TOP, hit_rate, ndcg
from dllm2rec.evaluation.ranks import Ranks, ScoreFunction, in_history, lists_without, rank_targets, ranks_from_lists
from dllm2rec.evaluation.references import (
    COUNTING,
    REFERENCES,
    TEXT_REFERENCES,
    Follows,
    affordable_references,
    best_vectors,
    reference_score,
    with_text_weight,
)
from dllm2rec.evaluation.slices import Slice, popularity_slices
from dllm2rec.knowledge.align import align
from dllm2rec.knowledge.schema import MARKER as MANIFEST
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.merging import Mixture, mixture_of
from dllm2rec.teachers.references import ReferenceSettings
from dllm2rec.workflow.evaluating import dataset_of, evaluate
from dllm2rec.workflow.labelling import seconds_per_1000
from dllm2rec.workflow.runs import Run, family, identity, is_source

Values = NDArray[np.float64]
FEW = 2
"""Settings that a label names where they tell runs apart."""
AS_GOOD_AS_OUT = -10.0
"""A weight of items chosen before that is below this leaves them out; validation may choose milder ones, too."""
LEAVING_OUT: dict[Follows, str] = {"history": "history left out", "ever": "all chosen left out"}
"""What a row leaves out of its rankings, in words."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What one run or one reference did.

    Attributes:
        ranks: on the examples of the evidence.
        validation: mean NDCG@20 on validation, by which the best is chosen.
        seconds_per_1000: that 1,000 users take.
    """

    ranks: Ranks
    validation: float
    seconds_per_1000: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: name of the row in tables.
        runs: in the order of their seeds.
        ranks: of each run.
        validation: mean NDCG@20 on validation, over the runs.
        seconds_per_1000: mean over the runs.
    """

    label: str
    runs: tuple[Run, ...]
    ranks: tuple[Ranks, ...]
    validation: float
    seconds_per_1000: float

    @property
    def student(self) -> str:
        """Name of the student."""
        return self.runs[0].config.student

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.runs[0].config.method

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part."""
        return self.runs[0].config.distilled

    @property
    def left_out(self) -> Follows:
        """What it leaves out of its rankings."""
        return left_out(self.runs)

    def learned_from(self, knowledge: Knowledge) -> bool:
        """Whether it was this knowledge, as it is now, that taught."""
        source = self.runs[0].config.knowledge
        return source is not None and source.hash == knowledge.content_hash

    @cached_property
    def values(self) -> dict[str, Values]:
        """For each metric `[seeds, N]`."""
        return {name: np.stack([metric_values(ranks)[name] for ranks in self.ranks]) for name in METRICS}


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A teacher on the examples that it labelled.

    Attributes:
        name: kind and model.
        knowledge: its labels.
        label_rows: `[N]` row of each example in the labels, or -1.
        ranks: of the labelled examples, in their order.
        seconds_per_1000: as measured while it labelled; None where it was not.
    """

    name: str
    knowledge: Knowledge
    label_rows: NDArray[np.int64]
    ranks: Ranks
    seconds_per_1000: float | None

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """`[N]`, which examples it labelled."""
        return self.label_rows >= 0

    def ranks_without(self, what: Follows, examples: Examples) -> Ranks:
        """Rank by its lists as a student ranks that leaves something out.

        Args:
            what: items of the history, or all that were `ever` chosen before.
            examples: N, those of `label_rows`.
        """
        if what == "nothing":
            return self.ranks
        labels, kept = self.knowledge.labels.take(self.label_rows[self.labelled]), examples.take(self.labelled)
        known = None if what == "history" else kept.past
        held = in_history(labels.ranked_items, kept) if known is None else known.holds(labels.ranked_items)
        items, distances = lists_without(held, labels.ranked_items, labels.distances)
        return ranks_from_lists(items, kept, distances=distances)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything about one split of one dataset.

    Attributes:
        dataset: that all runs share.
        split: which.
        mask_history: whether items of the history were left out.
        examples: N of that split.
        groups: students, in the order in which their runs were given.
        references: by name.
        teachers: that labelled examples of this split; usually one.
        missing: where knowledge lay that is gone, or is no longer what taught.
        mixtures: what was merged to knowledge that taught, by its hash.
    """

    dataset: Dataset
    split: Split
    mask_history: bool
    examples: Examples
    groups: tuple[Group, ...]
    references: Mapping[str, Ranked]
    teachers: tuple[Taught, ...]
    missing: tuple[Path, ...]
    mixtures: Mapping[str, Mixture]

    @cached_property
    def slices(self) -> list[Slice]:
        """The examples by how often their target stands in what the references are fitted to."""
        train_on = reference_data([run for group in self.groups for run in group.runs])
        return popularity_slices(self.examples, self.dataset.train_counts(train_on))

    @cached_property
    def best_reference(self) -> tuple[str, dict[str, Values]] | None:
        """The reference that validation prefers, and its metrics `[N]`; None where there is none."""
        name = max(self.references, key=lambda one: self.references[one].validation, default=None)
        return None if name is None else (name, metric_values(self.references[name].ranks))


def gather(
    runs: Sequence[Run],
    *,
    split: Split = "test",
    mask_history: bool = False,
) -> Evidence:
    """Collect what is known of runs on the same dataset; runs that were not evaluated yet are.

    Args:
        runs: finished; the same run twice counts once, and so does a copy of it.
        split: validation or test.
        mask_history: leave items of the history out.

    Raises:
        UserError: there is no run, or the runs are on different datasets.
    """
    if not runs:
        raise UserError("there is no finished run to compare; train one first")
    runs = list({(run.config.label, hash_json(identity(run.config))): run for run in runs}.values())
    dataset = dataset_of(runs[0])
    for run in runs:
        dataset_of(run, dataset)
    examples = dataset.examples(split)
    knowledge, read, missing = _knowledge(runs)
    asked = (judge_teacher(one, dataset, examples, mask_history=mask_history) for one in knowledge)
    judged = [taught for taught in asked if taught is not None]
    names = distinct([(taught.name, taught.knowledge.path) for taught in judged])
    return Evidence(
        dataset=dataset,
        split=split,
        mask_history=mask_history,
        examples=examples,
        groups=_groups(runs, partial(_ranked, dataset, split, mask_history)),
        references=_references(runs, read, dataset, split, mask_history=mask_history),
        teachers=tuple(replace(taught, name=name) for taught, name in zip(judged, names, strict=True)),
        missing=missing,
        mixtures={one.content_hash: mixture for one in knowledge if (mixture := mixture_of(one)) is not None},
    )


def metric_values(ranks: Ranks) -> dict[str, Values]:
    """HR@20 and NDCG@20 of each example."""
    return {HITS: hit_rate(ranks.rank, TOP), METRIC: ndcg(ranks.rank, TOP)}


def judge_teacher(
    knowledge: Knowledge, dataset: Dataset, examples: Examples, *, mask_history: bool = False
) -> Taught | None:
    """Rank the targets by a teacher's lists; None where it labelled none of the examples."""
    rows = align(knowledge, dataset, examples)
    if knowledge.manifest.depth == 0 or not (rows >= 0).any():
        return None
    labels, examples = knowledge.labels.take(rows[rows >= 0]), examples.take(rows >= 0)
    items, distances = labels.ranked_items, labels.distances
    if mask_history:
        held = in_history(items, examples) & (items != examples.target[:, None])
        items, distances = lists_without(held, items, distances)
    return Taught(
        name=knowledge.manifest.name,
        knowledge=knowledge,
        label_rows=rows,
        ranks=ranks_from_lists(items, examples, distances=distances),
        seconds_per_1000=seconds_per_1000(knowledge),
    )


def _groups(runs: Sequence[Run], rank: Callable[[Run], Ranked]) -> tuple[Group, ...]:
    by_settings: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_settings.setdefault((run.config.label, family(run.config)), []).append(run)
    firsts = [members[0] for members in by_settings.values()]
    labels = distinct([(_told_apart(run, firsts), run.path) for run in firsts])
    return tuple(_group(members, label, rank) for members, label in zip(by_settings.values(), labels, strict=True))


def _told_apart(run: Run, runs: Sequence[Run]) -> str:
    """Return the label of a run; where others share it, with the settings that tell them apart, if they are few."""
    others = [other for other in runs if other.config.label == run.config.label and other is not run]
    found = [differing(identity(run.config), identity(other.config)) for other in others]
    own = {name: mine for one in found for name, (mine, _) in one.items() if name != "seed"}
    if not 0 < len(own) <= FEW or own.keys() & {"knowledge", "continues"}:  # their values are hashes
        return run.config.label
    return f"{run.config.label} ({', '.join(f'{name}={own[name]}' for name in sorted(own))})"


def distinct(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Return labels, those that several have with as much of the path behind them as tells these apart."""
    result = []
    for label, path in named:
        others = [other.resolve().parts for name, other in named if name == label and other is not path]
        parts = path.resolve().parts
        length = next(
            (n for n in range(1, len(parts)) if all(parts[-n:] != other[-n:] for other in others)), len(parts)
        )
        result.append(f"{label} [{Path(*parts[-length:])}]" if others else label)
    return result


def _group(runs: list[Run], label: str, rank: Callable[[Run], Ranked]) -> Group:
    runs = sorted(runs, key=lambda run: run.config.seed)
    found = [rank(run) for run in runs]
    return Group(
        label=label,
        runs=tuple(runs),
        ranks=tuple(one.ranks for one in found),
        validation=float(np.mean([one.validation for one in found])),
        seconds_per_1000=float(np.mean([one.seconds_per_1000 for one in found])),
    )


def _ranked(dataset: Dataset, split: Split, mask_history: bool, run: Run) -> Ranked:
    done = evaluate(run, split=split, mask_history=mask_history, dataset=dataset)
    ranks = run.read_ranks(split, mask_history=mask_history)
    if not np.array_equal(ranks.example_id, dataset.examples(split).example_id):
        raise UserError(f"{run.path}: its {split} ranks are of other examples; remove them and evaluate again")
    reached = run.finished().fit.validation
    if mask_history:
        reached = evaluate(run, split="validation", mask_history=True, dataset=dataset).metrics
    return Ranked(ranks=ranks, validation=reached[METRIC], seconds_per_1000=done.seconds_per_1000)


def _knowledge(runs: Sequence[Run]) -> tuple[list[Knowledge], list[Knowledge], tuple[Path, ...]]:
    """Load what taught the runs.

    Returns:
        Knowledge that did not change, each content once; all whose item vectors are those that runs read, though labels
        may have come since; and the places of knowledge that is gone or has changed.
    """
    same: dict[Path, Knowledge] = {}
    read: dict[Path, Knowledge] = {}
    changed = set()
    for run in runs:
        if run.config.knowledge is None:
            continue
        path = run.find(run.config.knowledge)
        one = read.get(path) or (Knowledge.load(path) if (path / MANIFEST).is_file() else None)
        if one is not None and is_source(one, run.config.knowledge):
            read[path] = one
        if one is not None and one.content_hash == run.config.knowledge.hash:
            same[path] = one
        else:
            changed.add(path)
    once = {one.content_hash: one for one in same.values()}
    return list(once.values()), list(read.values()), tuple(sorted(changed - same.keys()))


def _references(
    runs: Sequence[Run], knowledge: Sequence[Knowledge], dataset: Dataset, split: Split, *, mask_history: bool
) -> dict[str, Ranked]:
    """Rank with the references: fitted to as much as any run learned from, and with what any run has.

    That is text where a run reads text, by those of their item vectors that validation prefers; and for item-kNN demand
    after the cut where a run follows it, or else that the items of a history are left out where a run does that.
    """
    train_on = reference_data(runs)

    def rank(
        name: str,
        settings: ReferenceSettings,
        item_vectors: NDArray[np.float32] | None = None,
        follows: Follows = "nothing",
    ) -> Ranked:
        score = reference_score(settings, dataset, train_on=train_on, item_vectors=item_vectors, follows=follows)
        return _with_score(name, score, dataset, split, mask_history=mask_history)

    found = {name: rank(name, settings) for name, settings in affordable_references(dataset, train_on).items()}
    read = [one.item_vectors for one in knowledge if one.item_vectors is not None]
    vectors = best_vectors(read, dataset, train_on)
    text = {
        name: with_text_weight(settings, dataset, item_vectors=vectors, train_on=train_on)
        for name, settings in (TEXT_REFERENCES.items() if vectors is not None else ())
    }
    found |= {name: rank(name, settings, item_vectors=vectors) for name, settings in text.items()}
    follows = followed(runs)
    if follows != "nothing":
        for name, settings in ({COUNTING: REFERENCES[COUNTING]} | text).items():
            following = f"{name}, {LEAVING_OUT.get(follows, follows)}"
            found[following] = rank(following, settings, item_vectors=vectors, follows=follows)
    return found


def _with_score(name: str, score: ScoreFunction, dataset: Dataset, split: Split, *, mask_history: bool) -> Ranked:
    examples, told = dataset.examples(split), f"ranking by {name}"
    ranks = rank_targets(score, examples, mask_history=mask_history, top_k=TOP, told=told)
    chosen = ranks
    if split != "validation":
        told += ", validation"
        chosen = rank_targets(score, dataset.examples("validation"), mask_history=mask_history, told=told)
    return Ranked(
        ranks=ranks,
        validation=float(ndcg(chosen.rank, TOP).mean()),
        seconds_per_1000=latency(score, examples),
    )


def followed(runs: Sequence[Run]) -> Follows:
    """Say what some of these runs do after training, and references beside them."""
    if any(run.config.settings.demand != "none" for run in runs):
        return "demand"
    return left_out(runs)


def left_out(runs: Sequence[Run]) -> Follows:
    """Say what some of these runs leave out of their rankings: nothing, items of the history, or all `ever` chosen."""
    found = [run.result.fit.ever for run in runs if run.result and run.result.fit.again < AS_GOOD_AS_OUT]
    return "ever" if any(found) else "history" if found else "nothing"


def reference_data(runs: Sequence[Run]) -> TrainOn:
    """What references are fitted to beside these runs: all events before the cut if any run learned from them."""
    return "before-cut" if any(run.config.settings.train_on == "before-cut" for run in runs) else "positions"

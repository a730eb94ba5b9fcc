"""Which examples a teacher labels: its limits become examples, and a budget becomes a limit."""

import re
from functools import partial

import numpy as np

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Examples, Split, TrainOn
from dllm2rec.settings.teacher import (
    BigRecTeacher,
    LabellingTeacher,
    ReferenceTeacher,
    RetrievalTeacher,
    TeacherSettings,
    method_of,
    share,
)
from dllm2rec.teachers.bigrec import BigRecSettings, tuning_examples
from dllm2rec.teachers.choosing import Rule, order, within
from dllm2rec.teachers.references import Floats
from dllm2rec.teachers.retrieval import labelled_in_training

Limited = BigRecTeacher | RetrievalTeacher | ReferenceTeacher


def selection(
    dataset: Dataset, settings: LabellingTeacher, *, item_vectors: Floats | None = None
) -> dict[Split, Examples]:
    """Choose the examples of each split that a teacher labels; a greater limit adds to a smaller one's.

    What BIGRec is tuned on comes last, whatever the rule: it may know those answers by heart, and students would trust
    it most there.

    Args:
        dataset: to be labelled.
        settings: of the teacher, `counted`; `limits` and `choose` decide.
        item_vectors: `[V, D]`, for the rules that read them.

    Raises:
        UserError: a limit exceeds the split, or the item vectors do not fit.
    """
    limits = settings.limits.by_split()
    pools = {split: _pool(dataset, settings, split) for split in limits}
    for split, limit in limits.items():
        within(limit, pools[split], split)
    usual: Rule = type(settings).model_fields["choose"].default
    rules = {split: settings.choose if split == "train" and limit != 0 else usual for split, limit in limits.items()}
    choose = partial(order, dataset=dataset, seed=_seed(settings), train_on=_train_on(settings))
    rows = {split: choose(rules[split], examples=pool, item_vectors=item_vectors) for split, pool in pools.items()}
    if isinstance(settings, BigRecTeacher):
        tuned = tuning_examples(dataset, method_of(settings, BigRecSettings), seed=settings.seed).example_id
        known = np.isin(pools["train"].example_id[rows["train"]], tuned)
        rows["train"] = np.concatenate([rows["train"][~known], rows["train"][known]])
    return {split: pool.take(rows[split][: limits[split]]) for split, pool in pools.items()}


def available(dataset: Dataset, settings: Limited) -> dict[Split, int]:
    """Return how many examples of each split a teacher could label."""
    counts = dict(dataset.manifest.counts)
    if isinstance(settings, RetrievalTeacher):
        counts["train"] = len(labelled_in_training(dataset, settings, seed=settings.seed))
    else:
        counts["train"] = len(_pool(dataset, settings, "train"))
    return counts


def counted(dataset: Dataset, settings: TeacherSettings) -> TeacherSettings:
    """Return the settings with a count where `limits.train` is a share of the training examples."""
    if isinstance(settings, Limited) and isinstance(settings.limits.train, str):
        return with_budget(dataset, settings, settings.limits.train)
    return settings


def within_reach(dataset: Dataset, settings: TeacherSettings) -> TeacherSettings:
    """Return the settings with limits that a dataset can fill, which is smaller than that they were made for."""
    if not isinstance(settings, LabellingTeacher):
        return settings
    limits = {
        str(split): None if limit is None else min(limit, len(_pool(dataset, settings, split)))
        for split, limit in settings.limits.by_split().items()
    }
    return settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})


def with_budget(dataset: Dataset, settings: Limited, budget: str) -> Limited:
    """Return the settings with a limit on training examples.

    Args:
        dataset: to be labelled.
        settings: of the teacher.
        budget: a count such as "4000", or a share of the training examples such as "10%", which is at least one.

    Raises:
        UserError: it is neither, nothing, or more than there is.
    """
    every = available(dataset, settings)["train"]
    count = _count(budget.strip(), every)
    if not 0 < count <= every:
        raise UserError(
            f"--budget {budget}: there are {every} training examples to label; give a count from 1 to {every}, or a "
            "share above 0% and up to 100%"
        )
    return settings.model_copy(update={"limits": settings.limits.model_copy(update={"train": count})})


def _count(budget: str, available: int) -> int:
    """Return how many ``budget`` means; what it can't mean is 0."""
    if re.fullmatch("[0-9]{1,15}", budget):
        return int(budget)
    part = share(budget)
    return 0 if part is None else max(1, round(part * available))


def _pool(dataset: Dataset, settings: LabellingTeacher, split: Split) -> Examples:
    """All that a teacher could label of a split, in time order."""
    return dataset.training_examples(_train_on(settings)) if split == "train" else dataset.examples(split)


def _train_on(settings: LabellingTeacher) -> TrainOn:
    return settings.train_on if isinstance(settings, ReferenceTeacher) else "examples"


def _seed(settings: LabellingTeacher) -> int:
    return settings.seed if isinstance(settings, BigRecTeacher) else 0

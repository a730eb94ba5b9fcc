"""Which examples a retrieval teacher labels, and which events it has to read for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Examples, Split
from dllm2rec.teachers.choosing import random, within


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is labelled, and how it is found among what is read.

    Attributes:
        examples: to be labelled, by split.
        rows: of each, by split, the row of the history's newest event.
    """

    examples: Mapping[Split, Examples]
    rows: Mapping[Split, NDArray[np.int64]]

    def done(self, labelled: NDArray[np.int64]) -> bool:
        """Say whether all examples are among those that have a label."""
        return all(bool(np.isin(some.example_id, labelled).all()) for some in self.examples.values())

    @property
    def read(self) -> NDArray[np.int64]:
        """The rows after which a state is wanted, sorted."""
        return np.unique(np.concatenate(list(self.rows.values())))


def make_plan(dataset: Dataset, limits: Mapping[Split, int | None], users: NDArray[np.int64], seed: int) -> Plan:
    """Choose what is labelled: of training the examples of users in their order, of the others as BIGRec does."""
    train = dataset.training_examples("before-cut")
    train = of_users(train, users, limits.get("train"))
    examples: dict[Split, Examples] = {"train": train}
    for split in ("validation", "test"):
        some, limit = dataset.examples(split), limits.get(split)
        within(limit, some, split)
        examples[split] = some.take(random(some, seed=seed)[:limit])
    if not len(train):
        raise UserError("limits.train: a retrieval teacher learns from the training examples that it labels; give some")
    return Plan(examples=examples, rows={name: dataset.event_rows(some) - 1 for name, some in examples.items()})


def left_to_label(users: NDArray[np.int64], tuned: int) -> NDArray[np.int64]:
    """Return the users that the tuning does not read, who alone are labelled.

    Raises:
        UserError: it reads all of them.
    """
    if tuned >= len(users):
        raise UserError(
            f"tuning.sequences: the tuning reads the histories of {tuned:,} users, and {len(users):,} have one, so "
            f"nobody is left to label; lower it, as with --set tuning.sequences={len(users) // 2}"
        )
    return users[tuned:]


def of_users(examples: Examples, users: NDArray[np.int64], limit: int | None) -> Examples:
    """Take the examples of the first users, as many as the limit has room for."""
    place = np.full(int(examples.user.max(initial=0)) + 1, -1)
    inside = users[users < len(place)]
    place[inside] = np.arange(len(inside))
    when = place[examples.user]
    available = np.flatnonzero(when >= 0)
    if limit is not None and limit > len(available):
        raise UserError(
            f"limits.train: {limit} is more than the {len(available)} training examples of users that the tuning does "
            "not read"
        )
    order = available[np.argsort(when[available], kind="stable")]
    return examples.take(np.sort(order[:limit]))


def user_order(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """Put the users that training can learn from in an order that a seed fixes, whatever the order of the log."""
    length = np.diff(dataset.training_sequences("before-cut").offsets)
    users = np.flatnonzero(length >= 2)
    names = dataset.user_ids
    key = [hashlib.blake2b(f"{seed} reader {names[user]}".encode(), digest_size=8).digest() for user in users.tolist()]
    return users[sorted(range(len(users)), key=key.__getitem__)]

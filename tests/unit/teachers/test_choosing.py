"""Which examples a teacher labels first: hand-made cases, and what every rule promises."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Examples, Sequences
from dllm2rec.teachers import choosing
from dllm2rec.teachers.choosing import Rule, disagreement, diverse, order, random, uncertain
from dllm2rec.teachers.reference_teacher import out_of_fold
from dllm2rec.teachers.references import ItemKNNSettings, fit_item_knn

RULES = get_args(Rule)
ORDER = [5, 2, 6, 1, 0, 7, 3, 4]
"""Of the ids 100 to 107, by seed 0."""


def sequences(*users: list[int]) -> Sequences:
    return Sequences(
        items=np.array([item for user in users for item in user], dtype=np.int32),
        times=np.arange(sum(map(len, users))),
        offsets=np.cumsum([0, *map(len, users)]),
    )


def examples(*histories: list[int], num_items: int) -> Examples:
    count, width = len(histories), max(map(len, histories))
    padded = [[num_items] * (width - len(history)) + history for history in histories]
    return Examples(
        example_id=np.arange(100, 100 + count),
        user=np.arange(count, dtype=np.int32),
        history=np.array(padded, dtype=np.int32),
        target=np.zeros(count, np.int32),
        time=np.arange(count),
        num_items=num_items,
    )


def everything(some: Examples, counted: Sequences) -> list[tuple[np.ndarray, Sequences]]:
    return [(np.arange(len(some)), counted)]


def test_random_keeps_the_order_that_labels_on_disk_were_made_in() -> None:
    some = examples(*[[0]] * 8, num_items=1)
    assert random(some, seed=0).tolist() == ORDER
    assert random(some, seed=1).tolist() != ORDER
    assert random(some, seed=0, purpose="tuning").tolist() != ORDER


def test_random_orders_two_examples_alike_whatever_others_there_are(tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    some = train.take(np.arange(0, len(train), 3))
    whole = train.example_id[random(train, seed=2)]
    part = some.example_id[random(some, seed=2)]
    assert part.tolist() == whole[np.isin(whole, part)].tolist()


def test_uncertain_takes_first_what_item_knn_scores_low() -> None:
    """The best item has 3/4 after 0 and 1/2 after 2, nothing after 4, and .8 * 3/4 after 0, 2."""
    counted = sequences([0, 1], [0, 1], [0, 1], [2, 3], [4])
    some = examples([0], [2], [4], [0, 2], num_items=5)
    assert uncertain(some, everything(some, counted), seed=0).tolist() == [2, 1, 3, 0]


def test_disagreement_takes_first_what_neighbours_have_least_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """By text 0, 1, 2 are alike, and 3, 4, 5. In sequences 0 is with 1 and 2, 3 with 4 and 0, 5 with 1 and 2."""
    monkeypatch.setattr(choosing, "TOP", 3)
    vectors = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]], dtype=np.float32)
    counted = sequences([0, 1], [0, 2], [3, 4], [3, 0], [5, 1], [5, 2])
    some = examples([0], [3], [5], num_items=6)
    expected = [2, 1, 0]  # none in common, then 4, then 1 and 2
    assert disagreement(some, everything(some, counted), seed=0, item_vectors=vectors).tolist() == expected


def test_disagreement_does_not_count_items_that_item_knn_has_no_reason_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Item-kNN knows nothing after 2, so it lists nothing, and not the first items of the catalogue."""
    monkeypatch.setattr(choosing, "TOP", 2)
    vectors = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], dtype=np.float32)
    some = examples([2], [0], num_items=4)
    assert random(some, seed=0).tolist() == [1, 0]  # which a tie would give
    assert disagreement(some, everything(some, sequences([0, 1])), seed=0, item_vectors=vectors).tolist() == [0, 1]


@pytest.mark.parametrize("with_vectors", [True, False])
def test_diverse_visits_every_group_before_any_twice(with_vectors: bool) -> None:
    """Three groups of items, which stand in no history together; 90, 6 and 4 histories are of them."""
    groups = [0] * 90 + [1] * 6 + [2] * 4
    some = examples(*[[3 * group + n % 3, 3 * group + (n + 1) % 3] for n, group in enumerate(groups)], num_items=9)
    vectors = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0) if with_vectors else None
    chosen = np.array(groups)[diverse(some, seed=0, item_vectors=vectors)]
    assert sorted(chosen[:3].tolist()) == [0, 1, 2]
    # ten buckets at most, so the small groups are used up long before the great one
    assert (chosen[:60] > 0).sum() == 10


def test_diverse_takes_in_turn() -> None:
    assert choosing._in_turn(np.array([1, 1, 1, 0, 1, 0])).tolist() == [3, 0, 5, 1, 2, 4]


def test_the_oldest_come_first(tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    assert (np.diff(train.time[order("oldest", tiny_dataset, train, seed=0)]) >= 0).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("with_vectors", [True, False])
@pytest.mark.parametrize("train_on", ["examples", "before-cut"])
def test_an_order_is_a_permutation_the_same_again_and_blind_to_targets(
    rule: Rule, with_vectors: bool, train_on: str, tiny_dataset: Dataset
) -> None:
    train = tiny_dataset.training_examples(train_on)
    vectors = np.random.default_rng(0).normal(size=(tiny_dataset.num_items, 3)).astype(np.float32)
    how = {"seed": 1, "train_on": train_on, "item_vectors": vectors if with_vectors else None}
    first = order(rule, tiny_dataset, train, **how)
    assert sorted(first.tolist()) == list(range(len(train)))
    np.testing.assert_array_equal(order(rule, tiny_dataset, train, **how), first)
    swapped = replace(train, target=np.random.default_rng(0).permutation(train.target))
    assert not np.array_equal(swapped.target, train.target)
    np.testing.assert_array_equal(order(rule, tiny_dataset, swapped, **how), first)


def test_ties_are_settled_by_the_order_of_random() -> None:
    some = examples(*[[0]] * 8, num_items=2)
    parts = everything(some, sequences([0, 1]))
    for chosen in (uncertain(some, parts, seed=0), disagreement(some, parts, seed=0), diverse(some, seed=0)):
        assert chosen.tolist() == ORDER


def test_uncertainty_is_that_of_item_knn_which_has_not_counted_the_user(tiny_dataset: Dataset) -> None:
    train, counted = tiny_dataset.training_examples("before-cut"), tiny_dataset.training_sequences("before-cut")
    sure = np.full(len(train), np.nan)
    for rows, others in out_of_fold(tiny_dataset, train, counted, train_on="before-cut", folds=choosing.FOLDS):
        assert np.diff(others.offsets)[train.user[rows]].sum() == 0
        knn = fit_item_knn(ItemKNNSettings(), others, num_items=tiny_dataset.num_items)
        sure[rows] = knn.scores(train.history[rows]).max(axis=1)
    chosen = order("uncertain", tiny_dataset, train, seed=0, train_on="before-cut")
    assert (np.diff(sure[chosen]) >= 0).all()
    seen = fit_item_knn(ItemKNNSettings(), counted, num_items=tiny_dataset.num_items)
    assert (np.diff(seen.scores(train.history).max(axis=1)[chosen]) < 0).any()


@pytest.mark.parametrize("rule", ["disagreement", "diverse"])
def test_item_vectors_of_another_catalogue_are_refused(rule: Rule, tiny_dataset: Dataset) -> None:
    with pytest.raises(UserError, match=f"3 item vectors for {tiny_dataset.num_items} items"):
        order(rule, tiny_dataset, tiny_dataset.examples("train"), seed=0, item_vectors=np.zeros((3, 2), np.float32))

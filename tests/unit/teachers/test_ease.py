"""EASE by hand, its closed form against the problem that it solves, and what it refuses."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Sequences
from dllm2rec.teachers.ease import EASESettings, fit_ease, item_weights
from dllm2rec.teachers.references import fit_reference


def sequences(*users: list[int]) -> Sequences:
    return Sequences(
        items=np.array([item for user in users for item in user], dtype=np.int32),
        times=np.arange(sum(map(len, users))),
        offsets=np.cumsum([0, *map(len, users)]),
    )


def chosen(users: int, items: int) -> sparse.csr_array:
    return sparse.csr_array((np.random.default_rng(0).random((users, items)) < 0.3).astype(np.float32))


def test_two_items_by_hand() -> None:
    """X = [[1, 1], [1, 0]], X^T X + I = [[3, 1], [1, 2]], P = [[2, -1], [-1, 3]] / 5."""
    fitted = fit_ease(EASESettings(regularisation=1), sequences([0, 1], [0]), num_items=2)
    assert fitted.weights.dtype == np.float32
    np.testing.assert_allclose(fitted.weights, [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)


def test_an_item_counts_once_a_user() -> None:
    once = fit_ease(EASESettings(regularisation=1), sequences([0, 1], [0], []), num_items=2)
    often = fit_ease(EASESettings(regularisation=1), sequences([0, 1, 0, 0], [0, 0], []), num_items=2)
    np.testing.assert_array_equal(once.weights, often.weights)


@pytest.mark.parametrize("regularisation", [0.5, 20.0])
def test_each_column_is_the_ridge_regression_on_the_other_items(regularisation: float) -> None:
    """Under a zero diagonal the objective falls apart into one ridge regression a column."""
    given = chosen(users=50, items=12)
    weights = item_weights(given, regularisation=regularisation)
    dense = given.toarray().astype(np.float64)
    for item in range(12):
        others = np.delete(np.arange(12), item)
        gram = dense[:, others].T @ dense[:, others] + regularisation * np.eye(11)
        best = np.linalg.solve(gram, dense[:, others].T @ dense[:, item])
        np.testing.assert_allclose(weights[others, item], best, rtol=1e-4, atol=1e-6)
    assert not weights.diagonal().any()


def test_a_history_sums_the_weights_of_its_items() -> None:
    fitted = fit_ease(EASESettings(regularisation=2, decay=0.5), sequences([0, 1, 2], [0, 2], [1, 2]), num_items=3)
    rows = fitted.weights
    scores = fitted.scores(np.array([[0, 2], [3, 1], [1, 1]], dtype=np.int32))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0.5 * rows[0] + rows[2], rows[1], 1.5 * rows[1]], rtol=1e-6)


def test_items_that_training_has_not_seen_score_zero_and_say_nothing() -> None:
    """Items 0, 2 and 5 of six are unseen; the others have the weights that they have alone."""
    fitted = fit_ease(EASESettings(), sequences([1, 3], [3, 4, 1]), num_items=6)
    alone = fit_ease(EASESettings(), sequences([0, 1], [1, 2, 0]), num_items=3)
    scores = fitted.scores(np.array([[6, 6], [0, 5], [2, 3], [4, 1]]))
    np.testing.assert_array_equal(scores[:2], np.zeros((2, 6)))
    np.testing.assert_array_equal(scores[:, [0, 2, 5]], np.zeros((4, 3)))
    np.testing.assert_array_equal(scores[:, [1, 3, 4]], alone.scores(np.array([[3, 3], [3, 3], [3, 1], [2, 0]])))


def test_nothing_was_seen() -> None:
    fitted = fit_ease(EASESettings(), sequences([], []), num_items=3)
    assert fitted.weights.shape == (0, 0)
    np.testing.assert_array_equal(fitted.scores(np.array([[3, 0]])), np.zeros((1, 3)))


def test_more_items_than_its_bound_are_refused() -> None:
    log = sequences([0, 2, 4], [4, 6])
    with pytest.raises(UserError, match=r"4 items .* more than max_items = 3; .*--set reference.max_items=4.*\(knn\)"):
        fit_ease(EASESettings(max_items=3), log, num_items=10)
    assert len(fit_ease(EASESettings(max_items=4), log, num_items=10).seen) == 4


def test_the_refusal_names_the_memory() -> None:
    many = sequences(list(range(50_000)))
    with pytest.raises(UserError, match=r"needs 10\.0 GB for weights between the 50,000 items"):
        fit_ease(EASESettings(), many, num_items=50_000)


def test_a_regularisation_that_single_precision_can_not_hold_is_refused() -> None:
    with pytest.raises(UserError, match="regularisation 1e-12; raise it"):
        fit_ease(EASESettings(regularisation=1e-12), sequences([0, 1]), num_items=2)


def test_all_happens_in_one_matrix() -> None:
    items = 1500
    given = sparse.csr_array(sparse.eye_array(items, dtype=np.float32))
    tracemalloc.start()
    item_weights(given, regularisation=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 4 * items**2


def test_it_is_a_reference(tiny_dataset: Dataset) -> None:
    """Fitted to the training sequences of the dataset, or to those that are given."""
    history = tiny_dataset.examples("test").history
    log = tiny_dataset.training_sequences()
    some = log.of(np.arange(len(log)) % 2 == 0)
    for given in (None, some):
        found = fit_reference(EASESettings(), tiny_dataset, sequences=given).scores(history)
        expected = fit_ease(EASESettings(), given or log, num_items=tiny_dataset.num_items).scores(history)
        np.testing.assert_array_equal(found, expected)

"""EASE: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

Which weights between items `B`, none from an item to itself, tell best what a user chose from what else they chose?
Those that minimise `||X - X B||^2 + lambda ||B||^2` with a zero diagonal, where X has a row a user and a column an
item, 1 where the user chose it. They have a closed form (eqs. 7, 8):

    P = (X^T X + lambda I)^-1,    B = I - P diag(1 / diag P)

So an item pair that many others explain counts for little, which no neighbourhood by counts alone can know. Order takes
part in the history's weights only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.linalg.lapack import spotrf, spotri

from dllm2rec.core.errors import UserError
from dllm2rec.core.settings import Settings
from dllm2rec.data.examples import Sequences
from dllm2rec.teachers.histories import history_weights

Floats = NDArray[np.float32]


class EASESettings(Settings):
    """Score items by weights between items that tell each user's items from their others.

    Attributes:
        regularisation: lambda, what a squared weight costs.
        decay: of a history item's weight, a step of age.
        max_items: items in the training sequences, S, beyond which it refuses: it needs `4 S^2` bytes, and time that
            grows with `S^3`.
    """

    kind: Literal["ease"] = "ease"
    regularisation: float = Field(default=100.0, gt=0)
    decay: float = Field(default=0.5, gt=0, le=1)
    max_items: int = Field(default=20_000, ge=1)


@dataclass(frozen=True, kw_only=True)
class EASE:
    """Sums the weights from the history's items; items that no training sequence holds score 0.

    Attributes:
        weights: `[S, S]`, B; row i says what speaks for and against each item where i was chosen.
        seen: `[S]`, the items of its rows and columns, ascending.
        num_items: V.
        decay: of a history item's weight, a step of age.
    """

    weights: Floats
    seen: NDArray[np.int32]
    num_items: int
    decay: float

    def scores(self, history: NDArray[np.integer]) -> Floats:
        """Score `[B, L]` histories. Returns `[B, V]`."""
        weights = history_weights(history, num_items=self.num_items, decay=self.decay)
        scores = np.zeros((len(history), self.num_items), dtype=np.float32)
        scores[:, self.seen] = weights[:, self.seen] @ self.weights
        return scores


def fit_ease(settings: EASESettings, sequences: Sequences, *, num_items: int) -> EASE:
    """Compute the weights between the items that the sequences hold.

    Args:
        settings: regularisation, decay and bound.
        sequences: of training items; an item counts once a user.
        num_items: V.

    Raises:
        UserError: the sequences hold more than `max_items` items, or the regularisation is too small.
    """
    seen, column = np.unique(sequences.items, return_inverse=True)
    if len(seen) > settings.max_items:
        raise UserError(
            f"EASE needs {4 * len(seen) ** 2 / 1e9:.1f} GB for weights between the {len(seen):,} items that training "
            f"sequences hold, more than max_items = {settings.max_items:,}; where memory allows raise it, as in "
            f"--set reference.max_items={len(seen)}, or take item-kNN (knn)"
        )
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    ones = np.ones(len(user), dtype=np.float32)
    chosen = sparse.csr_array((ones, (user, column)), shape=(len(sequences), len(seen)))
    chosen.data[:] = 1  # however often
    weights = item_weights(chosen, regularisation=settings.regularisation)
    return EASE(weights=weights, seen=seen, num_items=num_items, decay=settings.decay)


def item_weights(chosen: sparse.csr_array, *, regularisation: float) -> Floats:
    """Solve for B (eqs. 7, 8), all in the memory of one `[S, S]` matrix.

    Args:
        chosen: X, `[U, S]`, 1 where a user chose an item.
        regularisation: lambda.

    Raises:
        UserError: in single precision no inverse can be had, for the regularisation is too small.
    """
    if not chosen.shape[1]:  # nobody chose anything
        return np.zeros((0, 0), np.float32)
    matrix = (chosen.T @ chosen).toarray(order="F")
    np.fill_diagonal(matrix, matrix.diagonal() + regularisation)
    factor, failed = spotrf(matrix, lower=True, clean=False, overwrite_a=True)
    if failed:
        raise UserError(f"EASE has no solution in single precision with regularisation {regularisation:g}; raise it")
    inverse, _ = spotri(factor, lower=True, overwrite_c=True)
    for item in range(len(inverse)):  # only the lower triangle was computed
        inverse[item, item + 1 :] = inverse[item + 1 :, item]
    weights: Floats = inverse.T  # the same matrix, by rows
    weights /= -weights.diagonal()
    np.fill_diagonal(weights, 0)
    return weights

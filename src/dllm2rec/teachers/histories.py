"""How a history weighs its items, the same for all references."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def history_weights(history: NDArray[np.integer], *, num_items: int, decay: float) -> sparse.csr_array:
    """Turn `[B, L]` histories into `[B, V]` sparse weights: `decay ** age`, age 0 in the last column, 0 for padding."""
    batch, length = history.shape
    rows, columns = np.nonzero(history != num_items)
    weights = np.power(decay, np.arange(length)[::-1], dtype=np.float64)[columns].astype(np.float32)
    return sparse.csr_array((weights, (rows, history[rows, columns])), shape=(batch, num_items))

"""Small computations on numpy arrays that training and serving must do alike."""

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS, TEMPERATURE = 10, 0.1
_COSINES_AT_ONCE = 1 << 22
Floats = NDArray[np.float32]


def place_in_group(sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count from 0 within each of several groups that stand one after the other.

    >>> place_in_group(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    place: NDArray[np.int64] = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place


def unit_rows(vectors: Floats) -> Floats:
    """Scale each row `[D]` to length 1; a row of zeros stays."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(norm, np.float32(1e-12))
    return unit


def borrowed_offsets(new: Floats, *, known: Floats, offsets: Floats) -> Floats:
    """Return for each new item the mean offset of the `NEIGHBOURS` known items whose text is nearest.

    Near is by cosine, the known items' mean taken off; the nearer counts more: a softmax over the cosines at
    `TEMPERATURE`.

    Args:
        new: `[n, D]`, projected text of the new items.
        known: `[m, D]`, of the known ones.
        offsets: `[m, D]`, learned by those.

    Returns:
        `[n, D]`.
    """
    mean = known.mean(axis=0)
    unit = unit_rows(known - mean)
    count = min(NEIGHBOURS, len(known))
    result = np.empty_like(new)
    size = max(1, _COSINES_AT_ONCE // len(known))
    for start in range(0, len(new), size):
        cosine = unit_rows(new[start : start + size] - mean) @ unit.T
        items = np.argpartition(cosine, len(known) - count, axis=1)[:, len(known) - count :]
        scaled = np.take_along_axis(cosine, items, axis=1) / np.float32(TEMPERATURE)
        share = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        result[start : start + size] = (share[:, :, None] * offsets[items]).sum(axis=1)
    return result

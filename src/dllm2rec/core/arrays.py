"""Small things to do with numpy arrays that training and serving must do alike."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import explain_os_error

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


def evenly(count: int, rows: int) -> NDArray[np.int64]:
    """Return ``count`` of so many rows, or all of fewer, evenly from the first to the last.

    >>> evenly(3, 9).tolist(), evenly(5, 2).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def read_vectors(file: Path, count: int, size: int | None = None) -> Floats:
    """Read a `.npy` file of a vector for each item, `[count, size]`.

    Raises:
        UserError: it is no such file, of another shape, or not finite in single precision.
    """
    try:
        vectors = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{file}: not a .npy file of numbers ({error})") from None
    except OSError as error:
        raise explain_os_error(error, file) from error
    if not isinstance(vectors, np.ndarray):
        raise UserError(f"{file}: an archive of arrays; save the one array that holds the vectors")
    if vectors.dtype.kind not in "fiu":
        raise UserError(f"{file}: not a .npy file of numbers (it holds {vectors.dtype})")
    if vectors.ndim != 2 or vectors.shape != (count, size or max(1, vectors.shape[1])):
        wanted = "a vector" if size is None else f"a vector of size {size}"
        raise UserError(f"{file}: has the shape {list(vectors.shape)}; it must be {wanted} for each of {count} items")
    with np.errstate(over="ignore"):
        single: Floats = vectors.astype(np.float32)
    if not (finite := np.isfinite(single).all(axis=1)).all():
        raise UserError(f"{file}: row {int(np.argmin(finite)) + 1} is not finite in single precision; mend the file")
    return single


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

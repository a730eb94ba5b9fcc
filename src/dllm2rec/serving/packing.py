"""Item vectors on disk: as they are, in half precision, or as whole numbers of eight bits with a scale for each row."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError

Precision = Literal["float32", "float16", "int8"]
Tensors = dict[str, NDArray[Any]]
SCALE = ".scale"


def pack(vectors: NDArray[np.float32], name: str, precision: Precision) -> Tensors:
    """Turn vectors `[N, D]` into what is stored under ``name``; each row for itself, so that rows can be added.

    Raises:
        UserError: a value is too large for half precision.
    """
    match precision:
        case "float32":
            return {name: vectors}
        case "float16":
            with np.errstate(over="ignore"):
                halved = vectors.astype(np.float16)
            if not np.isfinite(halved).all():
                raise UserError("a value is too large for half precision; export with --precision float32")
            return {name: halved}
        case "int8":
            scale = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
            whole = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
            return {name: whole, name + SCALE: scale}


def unpack(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Return what was stored under ``name``, `[N, D]`."""
    stored = tensors[name]
    if stored.dtype != np.int8:
        return stored.astype(np.float32, copy=False)
    scale: NDArray[np.float32] = tensors[name + SCALE]
    return stored * scale[:, None]

"""From one seed to independent generators, which are passed on and never global."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive an independent 63-bit seed for a purpose, such as ``derive_seed(7, "negatives", epoch)``."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for a purpose (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU torch generator for a purpose (see `derive_seed`)."""
    import torch  # noqa: PLC0415 - core is importable without torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))

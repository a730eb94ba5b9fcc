"""One way to refuse scores that no loss can use."""

import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """Scores are NaN or infinite: the model has diverged."""


def require_scores(name: str, values: Tensor, shape: tuple[int | None, ...]) -> None:
    """Check that ``values`` has ``shape`` (None: any size but 0) and is finite.

    Raises:
        NotFiniteError: NaN or infinity inside; the message names the argument.
        ValueError: empty or another shape.
    """
    wanted = ", ".join("*" if size is None else str(size) for size in shape)
    fits = values.ndim == len(shape) and all(
        size is None or size == found for size, found in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must be [{wanted}], not {list(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty")
    if not bool(torch.isfinite(values.detach().sum())):  # one pass; a sum of finite scores overflows far beyond any use
        raise NotFiniteError(f"{name} has values that are not finite")

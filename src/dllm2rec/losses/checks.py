"""One way to refuse what no loss can use."""

import torch
from torch import Tensor

from dllm2rec.data.batches import Batch


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


def times(batch: Batch) -> Tensor:
    """Return the times of the examples, `[B]`.

    Raises:
        ValueError: the batch has none.
    """
    if batch.time is None:
        raise ValueError("which items are available depends on the time of an example, and the batch has none")
    return batch.time.cpu()

"""What packages that must not see each other do with tensors: keep those of a training, find the best of scores.

A training that may go on later is one safetensors file: weights, optimiser, and words beside them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path

_OPTIMIZER = "optimizer."


def save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name, whole or not at all."""
    # clone: safetensors refuses tensors that share memory
    with atomic_path(file) as target:
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, target, metadata)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: the tensors and the words.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged ({error}); remove it and start again") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name all that an optimiser remembers."""
    return {
        f"{_OPTIMIZER}{place}.{name}": torch.as_tensor(value)
        for place, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser what `optimizer_tensors` named; other tensors are left alone."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            place, _, key = name.removeprefix(_OPTIMIZER).partition(".")
            state.setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def best_items(scores: Tensor, k: int) -> Tensor:
    """Return the k best items of scores `[B, V]`, `[B, k]` int32, k at most V; equal scores in order of the index."""
    values, items = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    best = items[:, :k]
    if values.shape[1] > k:  # topk takes any of those that share the last place
        shared = values[:, k] == values[:, k - 1]
        if shared.any():
            best[shared] = _first_of_equals(scores[shared], values[shared, k - 1 : k], k)
    best = best.sort(dim=1).values
    order = scores.gather(1, best).sort(dim=1, descending=True, stable=True).indices
    return best.gather(1, order).to(torch.int32)


def _first_of_equals(scores: Tensor, bound: Tensor, k: int) -> Tensor:
    """Return the k items of scores `[B, V]` that are above a bound `[B, 1]`, or the first that are equal to it."""
    above, equal = scores > bound, scores == bound
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(len(scores), k)

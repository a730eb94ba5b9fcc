"""Checkpoints: weights, optimiser and counters in one safetensors file, so that none is ever of another epoch."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path
from dllm2rec.training.stopping import Stopping

LATEST = "checkpoint/latest.safetensors"
BEST = "checkpoint/best.safetensors"
_STATE = "state"


class Progress(BaseModel):
    """Where a run is.

    Attributes:
        seconds: spent so far.
        stopping: of early stopping.
        history: a line for each whole epoch behind it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    seconds: float = 0.0
    stopping: Stopping = Stopping()
    history: tuple[dict[str, Any], ...] = ()

    @property
    def epoch(self) -> int:
        """Number of the last whole epoch, from 1; 0 before the first."""
        return len(self.history)


def save_best(run: Path, student: nn.Module) -> None:
    """Write the weights of the best epoch so far."""
    _save(run / BEST, dict(student.state_dict()), {})


def save_checkpoint(
    run: Path, student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write all that the next epoch needs; ``helpers`` are trained with the student and are no part of it."""
    tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"helpers.{name}": tensor for name, tensor in helpers.state_dict().items()}
    for place, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in values.items()}
    _save(run / LATEST, tensors, {_STATE: progress.model_dump_json()})


def load_checkpoint(
    run: Path, student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Put student, helpers and optimiser back where the run was; None where there is no checkpoint.

    Raises:
        UserError: the checkpoint is damaged or of another student.
    """
    if not (run / LATEST).exists():
        return None
    tensors, metadata = _read(run / LATEST)
    for module, prefix in ((student, "student."), (helpers, "helpers.")):
        weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        _load_weights(module, weights, run / LATEST)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            place, _, key = rest.partition(".")
            state.setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress.model_validate(json.loads(metadata[_STATE]))


def load_student_weights(student: nn.Module, run: Path) -> None:
    """Give a student the best weights of a run.

    Raises:
        UserError: the run has none yet, or they are damaged or of another student.
    """
    file = run / BEST
    if not file.exists():
        raise UserError(f"{run}: no trained weights ({BEST} is missing); finish it with `dllm2rec train`")
    _load_weights(student, _read(file)[0], file)


def _load_weights(student: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    try:
        student.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"{file}: holds the weights of another student; choose another --out or remove the run"
        ) from None


def _save(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    # clone: safetensors refuses tensors that share memory
    with atomic_path(file) as target:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, target, metadata)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged ({error}); remove it and train again") from None

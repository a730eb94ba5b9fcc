"""Checkpoints: weights, optimiser and counters in one safetensors file, so that none is ever of another epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.tensors import load_optimizer, optimizer_tensors, read_tensors, save_tensors
from dllm2rec.evaluation.metrics import METRIC

LATEST = "checkpoint/latest.safetensors"
BEST = "checkpoint/best.safetensors"
HALFWAY = "checkpoint/halfway.safetensors"
"""Within an epoch, where one takes long."""
_STATE = "state"


class Progress(BaseModel):
    """Where a run is.

    Attributes:
        seconds: spent so far.
        history: a line for each whole epoch behind it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = 0.0
    history: tuple[dict[str, Any], ...] = ()

    @property
    def epoch(self) -> int:
        """Number of the last whole epoch, from 1; 0 before the first."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """Epoch of the greatest validation NDCG@20, the first of equals, from 1; 0 before the first."""
        values = [line["validation"][METRIC] for line in self.history]
        return 1 + values.index(max(values)) if values else 0

    def over(self, *, patience: int) -> bool:
        """Tell whether ``patience`` epochs have passed without a better value."""
        return self.epoch - self.best_epoch >= patience


def save_best(run: Path, student: nn.Module) -> None:
    """Write the weights of the best epoch so far."""
    save_tensors(run / BEST, dict(student.state_dict()))


def save_checkpoint(
    run: Path, student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write all that the next epoch needs; ``helpers`` are trained with the student and are no part of it."""
    save_tensors(run / LATEST, _tensors(student, helpers, optimizer), {_STATE: progress.model_dump_json()})
    (run / HALFWAY).unlink(missing_ok=True)


def load_checkpoint(
    run: Path, student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Put student, helpers and optimiser back where the run was; None where there is no checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or of another student or version.
    """
    if not (run / LATEST).exists():
        return None
    tensors, metadata = read_tensors(run / LATEST)
    _restore(run / LATEST, tensors, student, helpers, optimizer)
    try:
        return Progress.model_validate_json(metadata[_STATE])
    except (KeyError, ValidationError):
        raise _other_version(run, LATEST) from None


class Place(BaseModel):
    """Where an epoch is.

    Attributes:
        epoch: its number, from 1.
        steps: that are behind it.
        seconds: spent on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Halfway:
    """What an interrupted epoch goes on from.

    Attributes:
        place: where it is.
        total: the sum of its losses so far.
    """

    place: Place
    total: Tensor
    _file: Path
    _tensors: dict[str, Tensor]

    def restore(
        self,
        student: nn.Module,
        helpers: nn.Module,
        optimizer: torch.optim.Optimizer,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        """Put all back where the epoch was.

        Raises:
            UserError: it is of another student or version.
        """
        _restore(self._file, self._tensors, student, helpers, optimizer)
        for name, generator in generators.items():
            generator.set_state(self._tensors[f"generator.{name}"])


def save_halfway(
    run: Path,
    student: nn.Module,
    helpers: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    *,
    place: Place,
    total: Tensor,
) -> None:
    """Write all that the rest of an epoch needs."""
    tensors = _tensors(student, helpers, optimizer) | {"total": total}
    tensors |= {f"generator.{name}": generator.get_state() for name, generator in generators.items()}
    save_tensors(run / HALFWAY, tensors, {_STATE: place.model_dump_json()})


def load_halfway(run: Path, epoch: int) -> Halfway | None:
    """Return where an epoch was interrupted; None where it did not begin, or not get far.

    Raises:
        UserError: what is there is damaged or of another version.
    """
    if not (run / HALFWAY).exists():
        return None
    tensors, metadata = read_tensors(run / HALFWAY)
    try:
        place, total = Place.model_validate_json(metadata[_STATE]), tensors["total"]
    except (KeyError, ValidationError):
        raise _other_version(run, HALFWAY) from None
    return Halfway(place=place, total=total, _file=run / HALFWAY, _tensors=tensors) if place.epoch == epoch else None


def _tensors(student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"helpers.{name}": tensor for name, tensor in helpers.state_dict().items()}
    return tensors | optimizer_tensors(optimizer)


def _restore(
    file: Path, tensors: dict[str, Tensor], student: nn.Module, helpers: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    for module, prefix in ((student, "student."), (helpers, "helpers.")):
        weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        _load_weights(module, weights, file)
    load_optimizer(optimizer, tensors)


def _other_version(run: Path, name: str) -> UserError:
    return UserError(f"{run / name}: not a checkpoint of this version; remove {run} and train again")


def load_student_weights(student: nn.Module, run: Path) -> None:
    """Give a student the best weights of a run.

    Raises:
        UserError: the run has none yet, or they are damaged or of another student.
    """
    file = run / BEST
    if not file.exists():
        raise UserError(f"{run}: no trained weights ({BEST} is missing); finish it with `dllm2rec train`")
    _load_weights(student, read_tensors(file)[0], file)


def _load_weights(student: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    try:
        student.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"{file}: holds the weights of another student; choose another --out or remove the run"
        ) from None

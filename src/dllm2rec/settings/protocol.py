"""Two protocols: what a cell's settings are where they are left open.

`paper` is what Cui et al. 2024 did, and what the classes' own defaults say. `strong` is what a student should be given
before anyone asks whether a teacher helps it: every position of every sequence before the cut as an example, a softmax
over the items that existed by then, the output tied to the item table so that text reaches it, small initial weights, a
learning rate that rises and falls, and scores that follow the newest demand as far as validation says.
`docs/research.md` and `docs/research-log.md` have the figures behind each choice.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

Protocol = Literal["paper", "strong"]
DEFAULT: Protocol = "strong"

_STRONG_STUDENT = {
    "dim": 128,
    "output": "tied",
    "unseen_offset": "neighbours",
    "dropout": 0.2,
    "offset_dropout": 0.15,
    "offset_std": 0.02,
    "projector_std": 0.06,
    "vector_scaling": "unit",
    "text_neighbours": 256,
    "transitions": True,
}
_STRONG_LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {"kind": "softmax", "candidates": "available", "leave_history": None},
    "sampled-softmax": {"candidates": "available"},
}
_STRONG_TRAINING = {
    "epochs": None,
    "batch_size": 512,
    "learning_rate": 2e-3,
    "warm_up": 0.05,
    "decay": "cosine",
    "optimizer": "adamw",
    "betas": (0.9, 0.98),
    "weight_decay": 0.01,
    "patience": 3,
    "clip_norm": 1.0,
}


def fill(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a cell with what its protocol says where they are silent.

    A loss other than a softmax keeps its own defaults.
    """
    filled = dict(values)
    if filled.get("protocol", DEFAULT) != "strong":
        return _with_kinds(filled)
    filled.setdefault("train_on", "before-cut")
    filled.setdefault("demand", "validation")
    filled["student"] = _under(filled.get("student", {}), {"kind": "transformer"}, _STRONG_STUDENT)
    filled["training"] = _under(filled.get("training", {}), _STRONG_TRAINING)
    loss = _under(filled.get("loss", {}))
    if isinstance(loss, Mapping) and (strong := _STRONG_LOSSES.get(loss.get("kind", "softmax"))):
        filled["loss"] = _under(loss, strong)
    return filled


def _with_kinds(values: dict[str, Any]) -> dict[str, Any]:
    """Name the kinds of the paper where a table leaves them out."""
    kinds = {"student": "sasrec", "loss": "bce"}
    return values | {name: _under(values[name], {"kind": kind}) for name, kind in kinds.items() if name in values}


def _under(values: Any, *defaults: Mapping[str, Any]) -> Any:
    """Put defaults under a table, or under what was set by name of settings that were validated before."""
    if isinstance(values, BaseModel):
        values = explicitly_set(values)
    if not isinstance(values, Mapping):
        return values
    under: dict[str, Any] = {}
    for part in defaults:
        under |= part
    return under | dict(values)


def explicitly_set(settings: BaseModel) -> dict[str, Any]:
    """Return what was set by name, and every `kind`: what is left out stays open for a method to decide."""
    names = settings.model_fields_set | ({"kind"} & type(settings).model_fields.keys())
    values = {name: getattr(settings, name) for name in type(settings).model_fields if name in names}
    return {name: explicitly_set(value) if isinstance(value, BaseModel) else value for name, value in values.items()}

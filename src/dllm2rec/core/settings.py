"""The base class of all settings, and how two of them differ in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

MOST_TOLD = 6
"""Settings that differ, told one by one."""


class Settings(BaseModel):
    """Frozen; refuses unknown names, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def differing(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the two values of each setting in which tables differ, by dotted name; None where there is none."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(here.keys() | there.keys()):
        first, second = here.get(name), there.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found |= differing(first, second, f"{prefix}{name}.")
        elif first != second:
            found[f"{prefix}{name}"] = (first, second)
    return found


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Say in which settings tables differ, as ``"training.patience is 3, asked for 7"``; the outermost first."""
    found = sorted(differing(here, there).items(), key=lambda one: one[0].count("."))
    told = [f"{name} is {first!r}, asked for {second!r}" for name, (first, second) in found[:MOST_TOLD]]
    more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
    return "; ".join([*told, *more])

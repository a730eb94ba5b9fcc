"""The base class of all settings, and how two of them differ in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen; refuses unknown names, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say each value in which ``there`` differs, as ``"training.patience is 3, asked for 7"``; tables one by one."""
    found = []
    for name in sorted(here.keys() | there.keys()):
        first, second = here.get(name), there.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += differences(first, second, f"{prefix}{name}.")
        elif first != second:
            found.append(f"{prefix}{name} is {first!r}, asked for {second!r}")
    return found

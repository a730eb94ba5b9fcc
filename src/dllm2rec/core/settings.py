"""The base class of all settings."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen; refuses unknown names, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

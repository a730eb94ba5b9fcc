"""When training ends: validation alone decides."""

from pydantic import BaseModel, ConfigDict


class Stopping(BaseModel):
    """What early stopping remembers between epochs.

    Attributes:
        best: greatest value so far.
        best_epoch: its epoch, from 1; 0 before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: float = float("-inf")
    best_epoch: int = 0

    def see(self, value: float, epoch: int) -> "Stopping":
        """Return the state after an epoch with this validation value; an equal value is not better."""
        if value > self.best:
            return self.model_copy(update={"best": value, "best_epoch": epoch})
        return self

    def over(self, epoch: int, *, patience: int) -> bool:
        """Tell whether ``patience`` epochs have passed without a better value."""
        return epoch - self.best_epoch >= patience

"""When training ends: validation alone decides."""

from pydantic import BaseModel, ConfigDict

METRIC = "NDCG@20"


class Stopping(BaseModel):
    """What early stopping remembers between epochs.

    Attributes:
        patience: epochs without a better validation value after which training ends.
        best: greatest value so far.
        best_epoch: its epoch, from 1; 0 before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patience: int
    best: float = float("-inf")
    best_epoch: int = 0

    def see(self, value: float, epoch: int) -> "Stopping":
        """Return the state after an epoch with this validation value; an equal value is not better."""
        if value > self.best:
            return self.model_copy(update={"best": value, "best_epoch": epoch})
        return self

    def over(self, epoch: int) -> bool:
        """Tell whether the patience is at its end."""
        return epoch - self.best_epoch >= self.patience

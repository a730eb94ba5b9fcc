"""How a trained student goes on with newer events."""

from pydantic import Field, NonNegativeFloat

from dllm2rec.core.settings import Settings


class UpdateSettings(Settings):
    """How a student goes on.

    Attributes:
        replay: examples that the old run learned from which are learned again, for each new one.
        epochs: maximum number of passes over new and replayed examples.
        rate: the peak learning rate, as a share of the old run's.
        patience: epochs without a better validation NDCG@20 after which training ends.
    """

    replay: NonNegativeFloat = 4.0
    epochs: int = Field(default=4, ge=1)
    rate: float = Field(default=1.0, gt=0, le=1)
    patience: int = Field(default=2, ge=1)

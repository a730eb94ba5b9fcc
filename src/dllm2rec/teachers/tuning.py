"""Settings of BIGRec's tuning. It is done by `trainer.py`, so that trl is imported only when something is tuned."""

from typing import Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from dllm2rec.teachers.lora import LoRASettings

Text = tuple[list[int], list[int]]  # a prompt and its answer, as token ids


class TuningSettings(LoRASettings):
    """How the language model is tuned, as in the original BIGRec.

    The defaults are for a small model and few examples: a learning rate of 1e-3 and 32 examples a step, where the
    original has 1e-4 and 128 for one of 7 billion parameters, and fewer epochs.

    Attributes:
        examples: training examples that it sees, and labels after all others; 0 leaves the language model as it is.
        validation_examples: examples that early stopping listens to.
        epochs: maximum number of passes over the examples.
        patience: epochs without a better validation loss before it stops.
        learning_rate: of AdamW, after a warm-up of a tenth of the steps, falling linearly to zero.
        batch_size: examples a step.
        micro_batch_size: most examples that are read at once; gradients are added up to `batch_size`, a multiple of it.
        loss_on_prompt: whether the loss is on the titles of the history, too, as in the original.
    """

    examples: NonNegativeInt = 1024
    validation_examples: PositiveInt = 128
    epochs: PositiveInt = 3
    patience: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    batch_size: PositiveInt = 32
    micro_batch_size: PositiveInt = 16
    loss_on_prompt: bool = True

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.micro_step:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        return self

    @property
    def micro_step(self) -> int:
        """Examples that are read at once: never more than a step has."""
        return min(self.micro_batch_size, self.batch_size)

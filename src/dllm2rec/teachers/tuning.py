"""BIGRec's tuning: LoRA on the task of writing the next title; `trainer.py` does it, through peft and trl."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import derive_seed
from dllm2rec.core.settings import Settings
from dllm2rec.teachers.llm import LanguageModel

if TYPE_CHECKING:
    from dllm2rec.teachers.retrieval_tuning import RetrievalTuningSettings

ADAPTER = "adapter"
Text = tuple[list[int], list[int]]  # a prompt and its answer, as token ids
SECONDS_BETWEEN_CHECKPOINTS = 60.0


class TuningSettings(Settings):
    """How the language model is tuned; the defaults are those of the original BIGRec, but for a shorter schedule.

    Attributes:
        examples: training examples that it sees, and labels after all others; 0 leaves the language model as it is.
        validation_examples: examples that early stopping listens to.
        epochs: most passes over the examples.
        patience: epochs without a better validation loss before it stops.
        learning_rate: of AdamW, after a warm-up of a tenth of the steps, falling linearly to zero.
        batch_size: examples a step.
        micro_batch_size: most examples that are read at once; gradients are added up to `batch_size`, a multiple of it.
        rank, alpha, dropout: of LoRA.
        modules: which projections get LoRA weights.
        loss_on_prompt: whether the loss is on the titles of the history, too, as in the original.
    """

    examples: NonNegativeInt = 1024
    validation_examples: PositiveInt = 128
    epochs: PositiveInt = 3
    patience: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    batch_size: PositiveInt = 32
    micro_batch_size: PositiveInt = 16
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    modules: tuple[str, ...] = ("q_proj", "v_proj")
    loss_on_prompt: bool = True

    @model_validator(mode="after")
    def _whole_batches(self) -> TuningSettings:
        if self.batch_size % self.micro_step:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        return self

    @property
    def micro_step(self) -> int:
        """Examples that are read at once: never more than a step has."""
        return min(self.micro_batch_size, self.batch_size)


def tune(
    llm: LanguageModel,
    *,
    train: Sequence[Text],
    validation: Sequence[Text],
    settings: TuningSettings,
    work: Path,
    seed: int,
) -> LanguageModel:
    """Tune a language model with LoRA and merge the weights of the best epoch into it.

    Interrupted, it goes on from its last checkpoint, a minute old at most (and a step), and ends with the same weights;
    a finished adapter in ``work`` is used as it is.

    Args:
        llm: to be tuned; it is used up.
        train: prompts and answers.
        validation: prompts and answers that choose the epoch.
        settings: see there.
        work: directory for checkpoints, and for `adapter/` in the end.
        seed: of LoRA's first weights, the order of examples and dropout.

    Returns:
        The tuned language model.

    Raises:
        UserError: the language model has no such modules.
    """
    from peft import PeftModel

    from dllm2rec.teachers.trainer import train_adapter

    adapter = work / ADAPTER
    with quiet():
        if adapter.exists():
            merged = PeftModel.from_pretrained(llm.model, str(adapter)).merge_and_unload()
        else:
            # LoRA's first weights and dropout come from torch's global state: seeded here, and left as it was
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(seed, "tuning"))
                merged = train_adapter(llm, train, validation, settings, work=work, seed=seed)
    return LanguageModel(model=merged.eval(), tokenizer=llm.tokenizer, name=llm.name, revision=llm.revision)


def with_lora(llm: LanguageModel, settings: TuningSettings | RetrievalTuningSettings) -> Any:
    """Put LoRA's weights into a language model; they alone are trained.

    Raises:
        UserError: it has no such modules; names those that it has.
    """
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(llm.model, lora)
    except ValueError:
        linear = {
            name.rpartition(".")[2] for name, part in llm.model.named_modules() if isinstance(part, torch.nn.Linear)
        }
        raise UserError(
            f"tuning.modules: {llm.name} has no {', '.join(sorted(settings.modules))}; "
            f"choose from {', '.join(sorted(linear))}"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' words off the terminal: there is a bar."""
    for name in ("transformers", "trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|trl|peft|torch|accelerate)\b")
        yield

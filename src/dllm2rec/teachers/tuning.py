"""BIGRec's tuning: LoRA on the task of writing the next title, through peft and trl."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from datasets import Dataset as TokenDataset
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch.nn import functional as F
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path
from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.core.seeding import derive_seed
from dllm2rec.teachers.llm import LanguageModel

Text = tuple[list[int], list[int]]  # a prompt and its answer, as token ids
IGNORED = -100
SECONDS_BETWEEN_CHECKPOINTS = 60.0
_STATE = "trainer_state.json"  # what the trainer writes last into a checkpoint


class TuningSettings(BaseModel):
    """How the language model is tuned; the defaults are those of the original BIGRec, but for a shorter schedule.

    Attributes:
        examples: training examples that it sees; 0 leaves the language model as it is.
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

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    adapter = work / "adapter"
    with quiet():
        if adapter.exists():
            merged = PeftModel.from_pretrained(llm.model, str(adapter)).merge_and_unload()
        else:
            # LoRA's first weights and dropout come from torch's global state: seeded here, and left as it was
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(seed, "tuning"))
                merged = _tune(llm, train, validation, settings, work=work, seed=seed)
    return LanguageModel(model=merged.eval(), tokenizer=llm.tokenizer, name=llm.name, revision=llm.revision)


def _tune(
    llm: LanguageModel,
    train: Sequence[Text],
    validation: Sequence[Text],
    settings: TuningSettings,
    *,
    work: Path,
    seed: int,
) -> Any:
    checkpoints = work / "checkpoints"
    trainer = _trainer(llm, train=train, validation=validation, settings=settings, checkpoints=checkpoints, seed=seed)
    last = _last_checkpoint(checkpoints)
    with progress_bar("tuning the language model", int(trainer.args.max_steps)) as advance:
        trainer.add_callback(_Progress(advance))
        trainer.add_callback(_Checkpoints())
        trainer.train(resume_from_checkpoint=last)
    with atomic_path(work / "adapter") as target:
        trainer.model.save_pretrained(target, safe_serialization=True)
    return trainer.model.merge_and_unload()


def _last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written to its end."""
    whole = [file.parent for file in checkpoints.glob(f"checkpoint-*/{_STATE}") if file.stat().st_size > 0]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _trainer(
    llm: LanguageModel,
    *,
    train: Sequence[Text],
    validation: Sequence[Text],
    settings: TuningSettings,
    checkpoints: Path,
    seed: int,
) -> Any:
    number = derive_seed(seed, "tuning") % (1 << 31)
    steps = settings.epochs * -(-len(train) // settings.batch_size)
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=steps,
        per_device_train_batch_size=settings.micro_step,
        per_device_eval_batch_size=settings.micro_step,
        gradient_accumulation_steps=settings.batch_size // settings.micro_step,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, steps // 10),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        train_sampling_strategy="group_by_length",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        bf16=False,
        max_length=None,
        use_cpu=llm.device.type == "cpu",
        dataloader_pin_memory=False,
        seed=number,
        data_seed=number,
    )
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        task_type="CAUSAL_LM",
    )
    trainer = _Trainer(
        model=with_lora(llm, lora),  # adapters stay in float32: steps of bfloat16 would be lost
        args=arguments,
        train_dataset=_tokens(train, loss_on_prompt=settings.loss_on_prompt),
        eval_dataset=_tokens(validation, loss_on_prompt=False),
        processing_class=llm.tokenizer,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=settings.patience)],
    )
    trainer.remove_callback(PrinterCallback)  # we have a bar
    return trainer


def with_lora(llm: LanguageModel, lora: LoraConfig) -> Any:
    """Put LoRA's weights into a language model; they alone are trained.

    Raises:
        UserError: it has no such modules; names those that it has.
    """
    try:
        return get_peft_model(llm.model, lora)
    except ValueError:
        linear = {
            name.rpartition(".")[2] for name, part in llm.model.named_modules() if isinstance(part, torch.nn.Linear)
        }
        raise UserError(
            f"tuning.modules: {llm.name} has no {', '.join(sorted(lora.target_modules))}; "
            f"choose from {', '.join(sorted(linear))}"
        ) from None


def _tokens(texts: Sequence[Text], *, loss_on_prompt: bool) -> TokenDataset:
    rows = [
        {
            "input_ids": prompt + answer,
            "labels": (prompt if loss_on_prompt else [IGNORED] * len(prompt)) + answer,
        }
        for prompt, answer in texts
    ]
    return TokenDataset.from_list(rows)


class _Trainer(SFTTrainer):  # type: ignore[misc] # trl carries no types
    """Computes logits only where there is a label, all at once: on a processor several times as fast as trl's tiles."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the cross-entropy over labelled tokens, summed and divided by those of the whole step."""
        labels = inputs["labels"][:, 1:]
        kept = labels != IGNORED
        llm = self.accelerator.unwrap_model(model).get_base_model()
        hidden = llm.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        logits = llm.get_output_embeddings()(hidden.last_hidden_state[:, :-1][kept])
        total = F.cross_entropy(logits.float(), labels[kept], reduction="sum")
        loss = total / (kept.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss


class _Progress(TrainerCallback):  # type: ignore[misc] # transformers carries no types
    """Shows the trainer's steps on our bar; what an interrupted run had done counts at once."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._done = 0
        self._note = ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        del args, control
        self._advance(state.global_step - self._done, note=self._note)
        self._done = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Show the validation loss."""
        del args, state, control
        self._note = f"validation loss {metrics['eval_loss']:.3f}"


class _Checkpoints(TrainerCallback):  # type: ignore[misc] # transformers carries no types
    """Asks for a checkpoint every minute, beside those at the end of each epoch."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for one, but not where an epoch ends: that checkpoint is written anyway, into the same place."""
        ends = state.global_step * args.num_train_epochs % state.max_steps == 0
        if not ends and time.monotonic() - self._last >= SECONDS_BETWEEN_CHECKPOINTS:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count from here."""
        del args, state, control
        self._last = time.monotonic()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' words off the terminal: there is a bar."""
    for name in ("transformers", "trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|trl|peft|torch|accelerate)\b")
        yield

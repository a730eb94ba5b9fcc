"""BIGRec's tuning: LoRA on the task of writing the next title. It needs trl, so it is imported where it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as TokenDataset
from torch.nn import functional as F
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig, SFTTrainer

from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.core.seeding import derive_seed, torch_generator
from dllm2rec.teachers.llm import LanguageModel
from dllm2rec.teachers.lora import (
    ADAPTER,
    SECONDS_BETWEEN_CHECKPOINTS,
    load_adapter,
    merged,
    quiet,
    save_adapter,
    with_lora,
)
from dllm2rec.teachers.tuning import Text, TuningSettings

IGNORED = -100
_STATE = "trainer_state.json"  # what the trainer writes last into a checkpoint


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
        seed: of LoRA's initial weights, the order of examples and dropout.

    Returns:
        The tuned language model.

    Raises:
        UserError: the language model has no such modules.
    """
    with quiet():
        if (work / ADAPTER).exists():
            return load_adapter(llm, work)
        # LoRA's initial weights and dropout come from torch's global state: seeded here, and left as it was
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "tuning"))
            checkpoints = work / "checkpoints"
            trainer = _trainer(
                llm, train=train, validation=validation, settings=settings, checkpoints=checkpoints, seed=seed
            )
            _train(trainer, checkpoints, patience=settings.patience)
        save_adapter(trainer.model, work)
        return merged(llm, trainer.model)


def _train(trainer: SFTTrainer, checkpoints: Path, *, patience: int) -> None:
    """Train LoRA's weights from the last checkpoint on, if there is one; the best ones are in the model then."""
    last = _last_checkpoint(checkpoints)
    begun = None if last is None else TrainerState.load_from_json(str(Path(last) / _STATE))
    if begun is not None and worse_since_best(begun.log_history) >= patience:  # it was over, and died then
        trainer.state = begun
        trainer._load_best_model()
    else:
        with progress_bar("tuning the language model", int(trainer.args.max_steps)) as advance:
            trainer.add_callback(_Progress(advance))
            trainer.add_callback(_Checkpoints())
            trainer.train(resume_from_checkpoint=last)


def worse_since_best(log: Sequence[Mapping[str, float]]) -> int:
    """Count the evaluations since the one with the lowest validation loss, which early stopping is patient with."""
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


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
    arguments._n_gpu = 1  # or each step would be spread over copies of the model, which trl refuses
    trainer = _Trainer(
        model=with_lora(llm, settings),  # adapters stay in float32: steps of bfloat16 would be lost
        args=arguments,
        train_dataset=_tokens(train, loss_on_prompt=settings.loss_on_prompt),
        eval_dataset=_tokens(validation, loss_on_prompt=False),
        processing_class=llm.tokenizer,
        callbacks=[_Patience(early_stopping_patience=settings.patience)],
    )
    trainer.remove_callback(PrinterCallback)  # we have a bar
    return trainer


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

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> LengthGroupedSampler:
        usual = super()._get_train_sampler(*args, **kwargs)
        return _OrderOfEpoch(self, usual.batch_size, lengths=usual.lengths)


class _OrderOfEpoch(LengthGroupedSampler):  # type: ignore[misc] # transformers carries no types
    """Orders examples by seed and epoch alone; transformers would draw another order where a run goes on."""

    def __init__(self, trainer: _Trainer, batch_size: int, *, lengths: list[int]) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._trainer = trainer

    def __iter__(self) -> Iterator[int]:
        epoch = self._trainer.state.global_step // -(-len(self.lengths) // self.batch_size)
        self.generator = torch_generator(self._trainer.args.data_seed, "order", epoch)
        found: Iterator[int] = super().__iter__()
        return found


class _Patience(EarlyStoppingCallback):  # type: ignore[misc] # transformers carries no types
    """Goes on counting where an interrupted run was; transformers would begin anew."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count what the checkpoint knows."""
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = worse_since_best(state.log_history)


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

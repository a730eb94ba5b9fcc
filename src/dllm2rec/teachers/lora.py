"""LoRA, as both tunings of a language model use it, through peft."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path
from dllm2rec.core.settings import Settings
from dllm2rec.teachers.llm import LanguageModel

ADAPTER = "adapter"
SECONDS_BETWEEN_CHECKPOINTS = 60.0


class LoRASettings(Settings):
    """Which weights are trained.

    Attributes:
        rank, alpha, dropout: of LoRA.
        modules: which projections get LoRA weights.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    modules: tuple[str, ...] = ("q_proj", "v_proj")


def with_lora(llm: LanguageModel, settings: LoRASettings) -> Any:
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


def save_adapter(tuned: Any, work: Path) -> None:
    """Leave LoRA's weights in `adapter/` of ``work``, whole or not at all."""
    with atomic_path(work / ADAPTER) as target:
        tuned.save_pretrained(target, safe_serialization=True)


def load_adapter(llm: LanguageModel, work: Path) -> LanguageModel:
    """Merge the weights that `save_adapter` left into a language model, which is used up."""
    from peft import PeftModel

    with quiet():
        return merged(llm, PeftModel.from_pretrained(llm.model, str(work / ADAPTER)))


def merged(llm: LanguageModel, tuned: Any) -> LanguageModel:
    """Return ``llm`` with the weights that were trained in it."""
    return replace(llm, model=tuned.merge_and_unload().eval())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' words off the terminal: there is a bar."""
    for name in ("transformers", "trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|trl|peft|torch|accelerate)\b")
        yield

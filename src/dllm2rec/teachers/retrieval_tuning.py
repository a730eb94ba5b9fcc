"""The retrieval teacher's tuning: LoRA, so that the state after a title is near the item that comes next."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import derive_seed, torch_generator
from dllm2rec.core.tensors import load_optimizer, optimizer_tensors, read_tensors, save_tensors
from dllm2rec.data.examples import Sequences
from dllm2rec.teachers.contrastive import Heads, contrastive_loss, draw_items
from dllm2rec.teachers.llm import LanguageModel
from dllm2rec.teachers.lora import (
    ADAPTER,
    SECONDS_BETWEEN_CHECKPOINTS,
    LoRASettings,
    load_adapter,
    merged,
    quiet,
    save_adapter,
    with_lora,
)
from dllm2rec.teachers.reading import Chunk, Lines, states_of

_CHECKPOINT = "tuning.safetensors"


class RetrievalTuningSettings(LoRASettings):
    """How the language model is tuned to read histories.

    Attributes:
        sequences: training sequences that it sees, each once; 0 leaves it as it is.
        batch_size: sequences a step.
        learning_rate: of AdamW; rises for a tenth of the steps and falls linearly to zero.
    """

    sequences: NonNegativeInt = 512
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 5e-4


def tune_reader(
    llm: LanguageModel,
    *,
    lines: Lines,
    sequences: Sequences,
    users: NDArray[np.int64],
    heads: Heads,
    competing: Tensor,
    near: Tensor,
    negatives: int,
    max_titles: int,
    leave_history: bool,
    settings: RetrievalTuningSettings,
    work: Path,
    seed: int,
) -> LanguageModel:
    """Tune with LoRA on the contrastive loss at every position of some training sequences; the heads learn beside it.

    Items are encoded by the language model as it was before; once it is tuned, it reads them anew and heads are fitted
    anew. Interrupted, it goes on from a checkpoint that is a minute old at most (and a step), and ends with the same
    weights; a finished adapter in ``work`` is used as it is.

    Args:
        llm: to be tuned; it is used up.
        lines: how it reads titles.
        sequences: training sequences of all users.
        users: whose sequences it sees.
        heads: with initial weights; used up.
        competing: `[M]`, the items that training chose.
        near: `[V, hard]`, hard negatives.
        negatives: drawn evenly a step.
        max_titles: most titles that are read at once; of a longer sequence the newest.
        leave_history: leave the items of a history out of its own sum.
        settings: see there.
        work: directory for the checkpoint, and for `adapter/` in the end.
        seed: of LoRA's initial weights, the order, and what is drawn.

    Raises:
        UserError: the language model has no such modules.
    """
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "retrieval"))
        if (work / ADAPTER).exists():
            return load_adapter(llm, work)
        model = with_lora(llm, settings)
        heads = heads.to(llm.device)
        inner = replace(llm, model=model.get_base_model())
        trained = nn.ParameterList(weight for weight in model.parameters() if weight.requires_grad)
        trained.extend(heads.parameters())
        chunks = _chunks(sequences, users, max_titles=max_titles, seed=seed)
        steps = [chunks[at : at + settings.batch_size] for at in range(0, len(chunks), settings.batch_size)]

        def loss(step: int) -> Tensor:
            torch.manual_seed(derive_seed(seed, "retrieval", step))  # LoRA's dropout knows no other generator
            draw = torch_generator(seed, "retrieval draws", step)
            target = np.concatenate([sequences.items[chunk.rows + 1] for chunk in steps[step]]).astype(np.int64)
            drawn = draw_items(
                torch.from_numpy(target), near=near, competing=competing, negatives=negatives, generator=draw
            )
            states = states_of(inner, lines, sequences.items, steps[step])
            held = _histories(steps[step], sequences.items, padding=len(lines.lines)) if leave_history else None
            return contrastive_loss(heads, states, drawn, history=held, generator=draw)

        model.train()
        _train(trained, loss, len(steps), settings, work / _CHECKPOINT)
        save_adapter(model, work)
        (work / _CHECKPOINT).unlink(missing_ok=True)
        return merged(llm, model)


def _train(
    trained: nn.ParameterList,
    loss: Callable[[int], Tensor],
    steps: int,
    settings: RetrievalTuningSettings,
    checkpoint: Path,
) -> None:
    """Take the steps that are left."""
    optimizer = torch.optim.AdamW(trained.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    done = _resume(checkpoint, trained, optimizer)
    saved = time.monotonic()
    with progress_bar("tuning the language model", steps, completed=done) as advance:
        for step in range(done, steps):
            value = loss(step)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _pace(step, steps)
            optimizer.step()
            advance(note=f"loss {float(value.detach()):.3f}")
            if time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS:
                _save(checkpoint, trained, optimizer, step + 1)
                saved = time.monotonic()


def _chunks(sequences: Sequences, users: NDArray[np.int64], *, max_titles: int, seed: int) -> Sequence[Chunk]:
    """Turn sequences into chunks of all their positions, in an order of the seed's."""
    order = torch.randperm(len(users), generator=torch_generator(seed, "retrieval order")).numpy()
    chunks = []
    for user in users[order].tolist():
        last = int(sequences.offsets[user + 1]) - 1  # what comes after it is not known in training
        start = max(int(sequences.offsets[user]), last - max_titles)
        if last > start:
            chunks.append(Chunk(start=start, rows=np.arange(start, last)))
    return chunks


def _histories(chunks: Sequence[Chunk], items: NDArray[np.int32], *, padding: int) -> Tensor:
    """Return the items of a chunk up to each of its rows, `[rows, longest]`."""
    parts = [items[chunk.start : row + 1].astype(np.int64) for chunk in chunks for row in chunk.rows.tolist()]
    return pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True, padding_value=padding)


def _pace(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm + 1)


def _save(file: Path, trained: nn.ParameterList, optimizer: torch.optim.Optimizer, step: int) -> None:
    save_tensors(file, dict(trained.state_dict()) | optimizer_tensors(optimizer), {"step": str(step)})


def _resume(file: Path, trained: nn.ParameterList, optimizer: torch.optim.Optimizer) -> int:
    """Put weights and optimiser back where a tuning was; returns the steps that it had done."""
    if not file.exists():
        return 0
    tensors, words = read_tensors(file)
    trained.load_state_dict({name: value for name, value in tensors.items() if name.isdecimal()})
    load_optimizer(optimizer, tensors)
    return int(words["step"])

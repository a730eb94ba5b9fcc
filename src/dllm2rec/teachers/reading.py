"""A language model reads whole histories: one pass gives the state after every title, which labels every position."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path
from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.data.examples import Sequences
from dllm2rec.teachers.cost import note
from dllm2rec.teachers.llm import LanguageModel
from dllm2rec.teachers.prompts import line_break, plain_tokens

Floats = NDArray[np.float32]
TOKENS_A_BATCH = 4096
CHUNKS_A_SHARD = 1024


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of one user's events that is read at once.

    Attributes:
        start: row of its first event.
        rows: of the events after whose titles the state is wanted, `[n]`, growing.
    """

    start: int
    rows: NDArray[np.int64]


class Lines:
    """Titles as a language model reads them: a line each, after the token that begins a text, if the model has one.

    What spells a special token in a title is read as plain text.

    Args:
        tokenizer: of the language model.
        titles: of the catalogue, by item index.
        title_tokens: longest title in tokens; longer ones are cut.
    """

    def __init__(self, tokenizer: Any, titles: Sequence[str], *, title_tokens: int) -> None:
        end = line_break(tokenizer)
        self.lines = [ids[:title_tokens] + end for ids in plain_tokens(tokenizer, titles)]
        self.start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]

    def read(self, items: NDArray[np.integer]) -> tuple[list[int], list[int]]:
        """Return the tokens of a sequence of items, and for each item the place of its last token."""
        tokens, ends = list(self.start), []
        for item in items.tolist():
            tokens += self.lines[item]
            ends.append(len(tokens) - 1)
        return tokens, ends


def cut(sequences: Sequences, rows: NDArray[np.int64], *, max_titles: int) -> list[Chunk]:
    """Cut sequences into chunks that together give the state after every one of the wanted events.

    A chunk holds at most ``max_titles`` titles. Where a user has more, chunks overlap by half, so that every state but
    those at the very beginning has at least half as many titles before it as there are, or as fit.

    Args:
        sequences: of all users, back to back.
        rows: the wanted events, by row of ``sequences.items``, sorted.
        max_titles: most titles a chunk.
    """
    stride = max(1, max_titles // 2)
    user = np.searchsorted(sequences.offsets, rows, side="right") - 1
    begin = sequences.offsets[user]
    # the chunk a row is read in: the first one for the first events, then a new one every ``stride`` events
    number = np.maximum(0, -(-(rows - begin + 1 - max_titles) // stride))
    start = begin + number * stride
    bounds = np.flatnonzero(np.r_[True, start[1:] != start[:-1], True])
    return [
        Chunk(start=int(start[first]), rows=rows[first:last])
        for first, last in itertools.pairwise(bounds)
        if last > first
    ]


def states_of(llm: LanguageModel, lines: Lines, items: NDArray[np.int32], chunks: Sequence[Chunk]) -> Tensor:
    """Read chunks in one batch; returns the states after the wanted titles, `[sum of rows, D]`, chunk after chunk.

    Gradients flow where they are enabled.
    """
    texts, wanted = [], []
    for chunk in chunks:
        tokens, ends = lines.read(items[chunk.start : chunk.rows[-1] + 1])
        texts.append(torch.tensor(tokens))
        wanted.append([ends[row - chunk.start] for row in chunk.rows.tolist()])
    ids = pad_sequence(texts, batch_first=True)
    hidden = llm.model.base_model(input_ids=ids.to(llm.device), use_cache=False).last_hidden_state
    batch = torch.tensor([place for place, ends in enumerate(wanted) for _ in ends], device=hidden.device)
    columns = torch.tensor([end for ends in wanted for end in ends], device=hidden.device)
    states: Tensor = hidden[batch, columns].float()
    return states


def item_states(llm: LanguageModel, lines: Lines) -> Floats:
    """Read each title of the catalogue by itself, `[V, D]`: an item is a history of one."""
    count = len(lines.lines)
    alone = [Chunk(start=row, rows=np.array([row])) for row in range(count)]
    states = np.empty((count, llm.model.config.get_text_config().hidden_size), np.float32)
    with progress_bar("reading the catalogue", count) as advance:
        for batch in _batches(alone, [len(line) for line in lines.lines]):
            rows = [alone[place].start for place in batch]
            states[rows] = _read(llm, lines, np.arange(count, dtype=np.int32), [alone[place] for place in batch])
            advance(len(rows))
    return states


def read_sequences(
    llm: LanguageModel, lines: Lines, sequences: Sequences, rows: NDArray[np.int64], *, max_titles: int, work: Path
) -> NDArray[np.float16]:
    """Return the state after each wanted event, `[N, D]`; what was read before is not read again.

    What reading took is noted among the shards, see `cost.noted`.

    Args:
        llm: the language model.
        lines: how it reads titles.
        sequences: of all users.
        rows: the wanted events, by row of ``sequences.items``, sorted.
        max_titles: most titles that are read at once.
        work: directory of the shards; named by whoever calls, so that it is never another model's.
    """
    chunks = cut(sequences, rows, max_titles=max_titles)
    shards = [chunks[start : start + CHUNKS_A_SHARD] for start in range(0, len(chunks), CHUNKS_A_SHARD)]
    parts = []
    with progress_bar("reading histories", len(rows)) as advance:
        for number, shard in enumerate(shards):
            file = work / f"states-{number:05d}.safetensors"
            known = _known(file, np.concatenate([chunk.rows for chunk in shard]))
            if known is None:
                start = time.perf_counter()
                known = _read_shard(llm, lines, sequences.items, shard, advance)
                with atomic_path(file) as target:
                    save_file({"rows": np.concatenate([chunk.rows for chunk in shard]), "states": known}, target)
                note(work, len(known), time.perf_counter() - start, [])
            else:
                advance(len(known))
            parts.append(known)
    return np.concatenate(parts)


def _read_shard(
    llm: LanguageModel, lines: Lines, items: NDArray[np.int32], shard: Sequence[Chunk], advance: Advance
) -> NDArray[np.float16]:
    places = np.concatenate([[0], np.cumsum([len(chunk.rows) for chunk in shard])])
    states = np.empty((places[-1], llm.model.config.get_text_config().hidden_size), np.float16)
    tokens = [sum(len(lines.lines[item]) for item in items[chunk.start : chunk.rows[-1] + 1]) for chunk in shard]
    for batch in _batches(shard, tokens):
        read = _read(llm, lines, items, [shard[place] for place in batch])
        filled = np.concatenate([np.arange(places[place], places[place + 1]) for place in batch])
        states[filled] = read
        advance(len(filled))
    if not np.isfinite(states).all():
        raise UserError(f"{llm.name}: its states are not finite; take another model, or another precision")
    return states


@torch.inference_mode()
def _read(llm: LanguageModel, lines: Lines, items: NDArray[np.int32], chunks: Sequence[Chunk]) -> Floats:
    states: Floats = states_of(llm, lines, items, chunks).cpu().numpy()
    return states


def _batches(chunks: Sequence[Chunk], tokens: Sequence[int]) -> Iterator[list[int]]:
    """Yield places of chunks of like length, about `TOKENS_A_BATCH` tokens together."""
    batch: list[int] = []
    for place in sorted(range(len(chunks)), key=tokens.__getitem__):
        if batch and (len(batch) + 1) * (tokens[place] + 1) > TOKENS_A_BATCH:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _known(file: Path, rows: NDArray[np.int64]) -> NDArray[np.float16] | None:
    """Return the states of a shard that was written before, if it is whole and of these rows."""
    if not file.is_file():
        return None
    try:
        stored = load_file(file)
    except SafetensorError:
        return None
    if set(stored) != {"rows", "states"} or not np.array_equal(stored["rows"], rows):
        return None
    states: NDArray[np.float16] = stored["states"]
    return states

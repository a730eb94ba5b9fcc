"""Prompts become written titles: greedy in our own loop with a shared prefix, all else through transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dllm2rec.teachers.llm import LanguageModel

if TYPE_CHECKING:
    from transformers.cache_utils import Cache


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the language model wrote for one prompt.

    Attributes:
        tokens: without the end.
        finished: whether it came to an end by itself within the limit of tokens.
    """

    tokens: list[int]
    finished: bool


class TitleTrie:
    """The titles of a catalogue as a tree of tokens: which tokens may follow what has been written.

    A title that is longer than the limit of tokens can be entered but not left: a dead end, which `Written.finished`
    tells.

    Args:
        titles: as token ids.
        end: token that ends a title.
    """

    def __init__(self, titles: Iterable[Sequence[int]], *, end: int) -> None:
        self._root: dict[int, Any] = {}
        self._end = end
        for title in titles:
            node = self._root
            for token in title:
                node = node.setdefault(token, {})
            node[end] = {}

    def allowed(self, written: Sequence[int]) -> list[int]:
        """Return the tokens that may follow; after anything that is no title's beginning, only the end."""
        node: dict[int, Any] | None = self._root
        for token in written:
            node = node.get(token) if node else None
        return list(node) if node else [self._end]


@torch.inference_mode()
def write(
    llm: LanguageModel,
    prompts: Sequence[list[int]],
    *,
    prefix: list[int],
    ends: Sequence[int],
    max_new_tokens: int,
    batch_size: int,
    beams: int = 1,
    trie: TitleTrie | None = None,
) -> list[Written]:
    """Let the language model continue prompts, in batches sorted by length.

    Args:
        llm: the language model.
        prompts: what follows the shared prefix, as token ids; no padding.
        prefix: how every prompt begins, a token or more; where texts are greedy, and the model one that looks back on
            keys and values, it is read once and shared by all batches.
        ends: tokens that end a text.
        max_new_tokens: longest text, in tokens.
        batch_size: prompts that are read at once.
        beams: 1 is greedy; more search for a likelier text, at that many times the cost.
        trie: keeps to titles of the catalogue.

    Returns:
        One text a prompt, in the order of ``prompts``.
    """
    longest = len(prefix) + max(map(len, prompts), default=0) + max_new_tokens
    start = _read_prefix(llm, prefix) if beams == 1 and _may_share(llm, longest) else None
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    written: dict[int, list[int]] = {}
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        if start is not None:
            batch = [prompts[row] for row in rows]
            texts = _greedy(llm, batch, start=start, ends=ends, max_new_tokens=max_new_tokens, trie=trie)
        else:
            whole = [prefix + prompts[row] for row in rows]
            texts = _generate(llm, whole, ends=ends, max_new_tokens=max_new_tokens, beams=beams, trie=trie)
        written.update(zip(rows, texts, strict=True))
    return [_cut(written[row], ends) for row in range(len(prompts))]


def _cut(tokens: list[int], ends: Sequence[int]) -> Written:
    place = next((at for at, token in enumerate(tokens) if token in ends), None)
    return Written(tokens=tokens[:place], finished=place is not None)


def _may_share(llm: LanguageModel, longest: int) -> bool:
    """Whether all of a text is in sight of its end: a sliding window counts the padding behind a shared prefix, too."""
    config = llm.model.config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return all(window is None or longest <= window for window in windows)


def _read_prefix(llm: LanguageModel, prefix: list[int]) -> Cache | None:
    """Return keys and values of a prefix; None where there are none, as in a model with a state in their place."""
    from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

    ids = torch.tensor([prefix], device=llm.device)
    cache = getattr(llm.model(input_ids=ids, use_cache=True), "past_key_values", None)
    keys_and_values = (DynamicLayer, DynamicSlidingWindowLayer)  # of which a row can be repeated and taken
    plain = isinstance(cache, Cache) and all(type(layer) in keys_and_values for layer in cache.layers)
    return cache if plain else None


def _pad_left(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask, `[B, L]`, padded on the left."""
    texts = [torch.tensor(prompt, dtype=torch.long) for prompt in prompts]
    ids = pad_sequence(texts, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True, padding_side="left")
    return ids.to(device), mask.to(device)


def _greedy(
    llm: LanguageModel,
    prompts: list[list[int]],
    *,
    start: Cache,
    ends: Sequence[int],
    max_new_tokens: int,
    trie: TitleTrie | None,
) -> list[list[int]]:
    """Write the likeliest token until each text ends; texts that ended leave the batch, so that the rest is faster."""
    ids, mask = _pad_left(prompts, llm.device)
    cache = copy.deepcopy(start)
    cache.batch_repeat_interleave(len(prompts))
    mask = torch.cat([mask.new_ones(len(prompts), start.get_seq_length()), mask], 1)
    texts: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    finish = torch.tensor(list(ends), device=llm.device)
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = llm.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        token = _choose(out.logits[:, -1], [texts[row] for row in active], trie)
        for row, value in zip(active, token.tolist(), strict=True):
            texts[row].append(value)
        going = (~torch.isin(token, finish)).nonzero().flatten()
        if len(going) == 0:
            break
        if len(going) < len(active):
            cache.batch_select_indices(going)
            active = [active[place] for place in going.tolist()]
            mask, token = mask[going], token[going]
        ids = token.unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
    return texts


def _choose(logits: Tensor, written: list[list[int]], trie: TitleTrie | None) -> Tensor:
    """Return the likeliest token `[B]` of logits `[B, tokens]`, among those that the trie allows."""
    if trie is None:
        return logits.argmax(dim=-1)
    allowed = torch.full_like(logits, -torch.inf)
    for row, text in enumerate(written):
        places = torch.tensor(trie.allowed(text), device=logits.device)
        allowed[row, places] = logits[row, places]
    return allowed.argmax(dim=-1)


def _generate(
    llm: LanguageModel,
    prompts: list[list[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    beams: int,
    trie: TitleTrie | None,
) -> list[list[int]]:
    ids, mask = _pad_left(prompts, llm.device)
    length = ids.shape[1]
    allowed: Callable[[int, Tensor], list[int]] | None = None
    if trie is not None:
        allowed = lambda _, row: trie.allowed(row[length:].tolist())  # noqa: E731 - transformers' signature
    out: Tensor = llm.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
        prefix_allowed_tokens_fn=allowed,
    )
    texts: list[list[int]] = out[:, length:].tolist()
    return texts

"""Histories become prompts of token ids; titles become answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError

INSTRUCTION = (
    "### Instruction:\nGiven the titles of the items a user chose, oldest first, write the title of the next one.\n"
    "### Input:\n"
)
RESPONSE = "### Response:\n"


def plain_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts; one that spells a special token, such as the end of a text, is text all the same."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


def line_break(tokenizer: Any) -> list[int]:
    """Return the one token that ends a line, without the space that LLaMA's tokenizer, as others, begins a text with.

    Raises:
        UserError: the tokenizer has none.
    """
    (tokens,) = plain_tokens(tokenizer, ["\n"])
    if not tokens or tokens[-1] == tokenizer.unk_token_id:
        raise UserError(f"{tokenizer.name_or_path}: its tokenizer has no line break, which ends a title; take another")
    return tokens[-1:]


class Prompts:
    """Builds BIGRec's prompts from token ids: instruction, at most ten titles a line each, and a place for the answer.

    Titles are tokenized once. Each ends with a line break, which no title holds, and what spells a special token is
    read as plain text, so a title can't break the template.
    All prompts begin with the same ``prefix``.

    Args:
        tokenizer: of the language model.
        titles: of the catalogue, by item index.
        max_titles: newest titles of a history that are shown.
        title_tokens: longest title in tokens; longer ones are cut.
        prompt_tokens: longest prompt in tokens; the oldest titles go first.
        instruction: how all prompts begin.
    """

    def __init__(
        self,
        tokenizer: Any,
        titles: Sequence[str],
        *,
        max_titles: int,
        title_tokens: int,
        prompt_tokens: int,
        instruction: str = INSTRUCTION,
    ) -> None:
        self._tokenizer = tokenizer
        self.title_tokens = title_tokens
        self.titles = [ids[:title_tokens] for ids in plain_tokens(tokenizer, titles)]
        self.newline = line_break(tokenizer)
        (self._response,) = plain_tokens(tokenizer, [RESPONSE])
        (special,) = tokenizer([instruction]).input_ids
        self.prefix: list[int] = special[:-1] if special[-1] == tokenizer.eos_token_id else special
        self._max_titles = max_titles
        self._room = prompt_tokens - len(self.prefix) - len(self._response)
        self._num_items = len(titles)

    def rest(self, history: NDArray[np.int32]) -> list[int]:
        """Return the prompt of a history `[L]`, padded on the left, without the ``prefix``."""
        items = history[history != self._num_items][-self._max_titles :]
        chosen: list[list[int]] = []
        room = self._room
        for item in reversed(items.tolist()):
            line = self.titles[item] + self.newline
            room -= len(line)
            if room < 0 and chosen:
                break
            chosen.append(line)
        return [token for line in reversed(chosen) for token in line] + self._response

    def prompt(self, history: NDArray[np.int32]) -> list[int]:
        """Return the whole prompt of a history `[L]`."""
        return self.prefix + self.rest(history)

    def answer(self, item: int) -> list[int]:
        """Return what the language model should write for an item: its title and a line break."""
        return self.titles[item] + self.newline

    def text(self, tokens: list[int]) -> str:
        """Return written tokens as text on one line."""
        return " ".join(str(self._tokenizer.decode(tokens, skip_special_tokens=True)).split())

    def grounded(self, tokens: list[int]) -> list[int]:
        """Return the tokens whose last state stands for a text; a text of nothing is a line break."""
        return self._start() + (tokens[: self.title_tokens] or self.newline)

    def _start(self) -> list[int]:
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self.prefix[0] == bos else []

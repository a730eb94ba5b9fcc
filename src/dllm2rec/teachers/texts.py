"""The teacher that explains: texts about items, users and training examples, for students that read them.

Facts about items and preferences of users are what KAR reads (Xi et al., RecSys 2024), chains of thought what LLM-CF
reads (Sun et al., CIKM 2024). A user's text is written from the history of the first training example of that user: no
such prompt holds an item that an example of its user has for a target, unless the user had chosen it before. A chain is
written from the history of its example, which holds the targets of the user's earlier examples: a student in training
reads no chain about its own user.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt

from dllm2rec.core.errors import UserError
from dllm2rec.core.progress import progress_bar
from dllm2rec.core.settings import Settings
from dllm2rec.data import Dataset, Examples
from dllm2rec.knowledge.schema import KnowledgeManifest
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter
from dllm2rec.knowledge.texts import KINDS, TextKind, Texts, TextWriter
from dllm2rec.teachers.choosing import random
from dllm2rec.teachers.cost import note
from dllm2rec.teachers.encoder import Encoder, load_encoder
from dllm2rec.teachers.generation import write
from dllm2rec.teachers.llm import LanguageModel, load_llm
from dllm2rec.teachers.packaged import DEFAULT_ENCODER
from dllm2rec.teachers.prompts import Prompts

INSTRUCTIONS: dict[TextKind, str] = {
    "item": "### Instruction:\nSay in two sentences what this item is, and who likes it.\n### Input:\n",
    "user": (
        "### Instruction:\nA user chose these items, oldest first. Say in two sentences what this user likes.\n"
        "### Input:\n"
    ),
    "chain": (
        "### Instruction:\nA user chose these items, oldest first. Reason in two sentences what the user will choose "
        "next, and why.\n### Input:\n"
    ),
}


class WritingSettings(Settings):
    """How texts are written and turned into vectors.

    Attributes:
        tokens: longest text, in tokens.
        max_titles: newest titles of a history in a prompt.
        title_tokens: longest title in a prompt, in tokens; longer ones are cut.
        model: sentence encoder of texts and titles: packaged model, directory, or a name on the hub.
        batch_size: prompts that are read at once.
        shard_size: texts a file, which is the most that a killed run loses.
    """

    kind: Literal["texts"] = "texts"
    tokens: PositiveInt = 48
    max_titles: PositiveInt = 10
    title_tokens: Annotated[int, Field(ge=2)] = 32
    model: str = DEFAULT_ENCODER
    batch_size: PositiveInt = 64
    shard_size: PositiveInt = 256


class Counts(Settings):
    """How many texts of each kind there are to be; None means all, of chains a tenth of the training examples.

    Attributes:
        items: those that training holds most often come first.
        users: users with training examples, in an order drawn once.
        chains: training examples, likewise.
    """

    items: NonNegativeInt | None = None
    users: NonNegativeInt | None = None
    chains: NonNegativeInt | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts to be written.

    Attributes:
        key: `[N]` int64, what each is about, see `knowledge.texts`.
        history: `[N, L]` int32, the items that its prompt names, padded on the left.
    """

    key: NDArray[np.int64]
    history: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.key)


def tasks(dataset: Dataset, counts: Counts, *, seed: int) -> dict[TextKind, Task]:
    """Return what is to be written about; only items and histories of training examples.

    Raises:
        UserError: there is not so much.
    """
    train = dataset.examples("train")
    by_count = np.argsort(-dataset.train_counts(), kind="stable").astype(np.int32)
    items = by_count[: _limit(counts.items, len(by_count), "items")]
    firsts = first_examples(train)
    users = firsts.take(random(firsts, seed=seed, purpose="users")[: _limit(counts.users, len(firsts), "users")])
    default = -(-len(train) // 10) if counts.chains is None else counts.chains
    chains = train.take(random(train, seed=seed, purpose="chains")[: _limit(default, len(train), "chains")])
    return {
        "item": Task(key=items.astype(np.int64), history=items[:, None]),
        "user": Task(key=users.user.astype(np.int64), history=users.history),
        "chain": Task(key=chains.example_id, history=chains.history),
    }


def first_examples(examples: Examples) -> Examples:
    """Return the first example of each user."""
    _, first = np.unique(examples.user, return_index=True)  # they are in time order
    return examples.take(first)


def teach_texts(
    dataset: Dataset,
    *,
    llm: str,
    out: Path,
    counts: Counts,
    settings: WritingSettings,
    seed: int,
    revision: str | None = None,
) -> Knowledge:
    """Make knowledge of texts and their vectors, and of title vectors by the same encoder.

    Interrupted and started again, it goes on; greater counts later add to what is there.

    Args:
        dataset: to be written about.
        llm: see `load_llm`; it is not tuned.
        out: knowledge directory.
        counts: how many texts of each kind.
        settings: see there.
        seed: of which users and examples come first.
        revision: of a hub name.

    Raises:
        UserError: a model can't be had, ``out`` holds something else, or there is not so much to write about.
    """
    wanted = tasks(dataset, counts, seed=seed)
    model, encoder = load_llm(llm, revision=revision), load_encoder(settings.model)
    writer = KnowledgeWriter(out, _manifest(dataset, model, encoder, settings, seed))
    if not writer.has_item_vectors():
        writer.write_item_vectors(encoder.encode(dataset.titles))
    writers = {kind: TextWriter(out, kind, encoder.width(words=False)) for kind in KINDS}
    done = sum(int(np.isin(task.key, list(writers[kind].keys)).sum()) for kind, task in wanted.items())
    with progress_bar("writing texts", sum(map(len, wanted.values())), completed=done) as advance:
        for kind, task in wanted.items():
            author = _Author(model, encoder, dataset, kind, settings)
            for part in _parts(task, writers[kind].keys, settings.shard_size):
                start = time.perf_counter()
                writers[kind].append(author.write(part))
                note(out, len(part), time.perf_counter() - start, [])
                advance(len(part))
    return Knowledge.load(out)


class _Author:
    def __init__(
        self, llm: LanguageModel, encoder: Encoder, dataset: Dataset, kind: TextKind, settings: WritingSettings
    ) -> None:
        self._llm, self._encoder, self._settings = llm, encoder, settings
        self._prompts = Prompts(
            llm.tokenizer,
            dataset.titles,
            max_titles=settings.max_titles,
            title_tokens=settings.title_tokens,
            prompt_tokens=64 + settings.max_titles * (settings.title_tokens + 2),
            instruction=INSTRUCTIONS[kind],
        )
        stop = llm.tokenizer.eos_token_id
        self._ends = [*self._prompts.newline, *([] if stop is None else [int(stop)])]

    def write(self, task: Task) -> Texts:
        settings = self._settings
        written = write(
            self._llm,
            [self._prompts.rest(history) for history in task.history],
            prefix=self._prompts.prefix,
            ends=self._ends,
            max_new_tokens=settings.tokens,
            batch_size=settings.batch_size,
        )
        text = [self._prompts.text(one.tokens) for one in written]
        return Texts(key=task.key, text=text, vectors=self._encoder.encode(text, advance=lambda _: None))


def _parts(task: Task, written: frozenset[int], size: int) -> list[Task]:
    """Cut what is not written yet at fixed places, so that a run that resumes reads the same batches."""
    parts = []
    for start in range(0, len(task), size):
        rows = slice(start, start + size)
        missing = np.array([key not in written for key in task.key[rows].tolist()], bool)
        if missing.any():
            parts.append(Task(key=task.key[rows][missing], history=task.history[rows][missing]))
    return parts


def _limit(count: int | None, available: int, name: str) -> int:
    if count is not None and count > available:
        raise UserError(f"{name}: {count:,} is more than the {available:,} that there are to write about")
    return available if count is None else count


def _manifest(
    dataset: Dataset, model: LanguageModel, encoder: Encoder, settings: WritingSettings, seed: int
) -> KnowledgeManifest:
    described: Mapping[str, JsonValue] = settings.model_dump(mode="json", exclude={"shard_size", "batch_size"})
    return KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="texts",
        model=model.name,
        revision=model.revision,
        seed=seed,
        settings=dict(described),
        depth=0,
        vector_size=encoder.width(words=False),
    )

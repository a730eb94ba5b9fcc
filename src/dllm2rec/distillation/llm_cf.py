"""LLM-CF (Sun et al., CIKM 2024): a student that reads a language model's reasoning about similar histories."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dllm2rec.core.settings import Settings
from dllm2rec.data import Examples
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.students.base import Reader, Student
from dllm2rec.students.initialise import initialise
from dllm2rec.students.item_table import scale_of, scale_vectors
from dllm2rec.students.sasrec import AttentionBlock


class LLMCFSettings(Settings):
    """LLM-CF.

    Attributes:
        weight: of what is added to the sequence vector; 0 is the plain student.
        neighbours: chains of thought that are read for a history.
        dropout: share of values that the decoder drops in training.
    """

    kind: Literal["llm-cf"] = "llm-cf"
    weight: Annotated[float, Field(ge=0)] = 0.1
    neighbours: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ChainReader(Reader):
    """Adds ``weight * f``: the nearest chains of thought are retrieved, and a small decoder reads them, nearest last.

    A history is described by the mean ``q`` of the vectors of its titles. Chains are retrieved by the cosine of ``q``
    and of the mean of the history that they were written about. The decoder reads ``W_q q_k + W_c c_k`` for each of
    the neighbours k, then ``W_q q``; its state at the last is ``f``.

    Relations: RRD and its kin learn from a teacher's list while they train and are free of it after; here the chains
    are part of the model, and serving needs the retrieval.

    Deviations: the original has chains written with the answer at hand, about positive and negative examples of a click
    model; here from the history alone. Its decoder learns with a loss of its own beside the task; here with the task.
    A history whose own chain is stored does not read that one, which it could not when it is new: chains as near as
    cosine 1 are left out. In training all chains about the user are left out, for the history of a later one of their
    examples holds the target; a user's validation and test targets are later than all that chains about that user are
    about. Where fewer than `neighbours` chains are left, the decoder reads those.

    Args:
        titles: `[V, Dt]`, vectors of the titles.
        keys: `[M, Dt]`, the mean title vector of the history that each chain is about.
        chains: `[M, Dt]`, vectors of the chains.
        users: `[M]`, whose history each chain is about.
        dim: D.
        settings: see there.

    Raises:
        ValueError: fewer chains than `neighbours`.
    """

    reads_users = False  # once it is trained

    def __init__(
        self, *, titles: Tensor, keys: Tensor, chains: Tensor, users: Tensor, dim: int, settings: LLMCFSettings
    ) -> None:
        super().__init__()
        if len(chains) < settings.neighbours:
            raise ValueError(f"{len(chains)} chains are fewer than the {settings.neighbours} neighbours to be read")
        self.weight, self.neighbours = settings.weight, settings.neighbours
        size = titles.shape[1]
        buffers = {
            "titles": torch.cat([titles, titles.new_zeros(1, size)]),
            "units": torch.nn.functional.normalize(keys, dim=1),
            "keys": scale_vectors(keys, "standardise"),
            "chains": scale_vectors(chains, "standardise"),
            "mean": scale_of(keys, "standardise")[0],
            "deviation": scale_of(keys, "standardise")[1],
            "users": users,
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self.of_history = nn.Linear(size, dim)
        self.of_chain = nn.Linear(size, dim)
        self.positions = nn.Embedding(settings.neighbours + 1, dim)
        self.block = AttentionBlock(dim=dim, dropout=settings.dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        history: Tensor,
        user: Tensor | None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return what is added, `[B, D]`; for the error see `retrieve`."""
        query = self.describe(history)
        near, there = (found.flip(1) for found in self.retrieve(query, user))  # the nearest last
        asked = self.of_history((query - self.mean) / self.deviation)  # type: ignore[operator]  # buffers
        read = self.of_history(self.keys[near]) + self.of_chain(self.chains[near])  # type: ignore[index]  # buffers
        states = torch.cat([read, asked.unsqueeze(1)], dim=1) + self.positions.weight
        mask = torch.cat([there, there.new_ones(len(there), 1)], dim=1)
        last: Tensor = self.norm(self.block(states, mask, queries=1, generator=generator)).squeeze(1)
        return self.weight * last

    def describe(self, history: Tensor) -> Tensor:
        """Return the mean title vector of histories `[B, L]`, `[B, Dt]`; zero for an empty one."""
        titles: Tensor = self.titles  # type: ignore[assignment]  # a buffer
        return mean_titles(titles, history)

    def retrieve(self, query: Tensor, user: Tensor | None) -> tuple[Tensor, Tensor]:
        """Find the nearest chains of queries `[B, Dt]` that may be read.

        Args:
            query: from `describe`.
            user: `[B]`, who asks; only training wants to know.

        Returns:
            The chains `[B, neighbours]`, nearest first, and bool of the same shape: false from where there are no more.

        Raises:
            ValueError: nobody says in training who the users are.
        """
        units: Tensor = self.units  # type: ignore[assignment]  # a buffer
        cosine = torch.nn.functional.normalize(query, dim=1) @ units.T
        left_out = cosine > 1 - 1e-5
        if self.training:
            if user is None:
                raise ValueError("a student with LLM-CF must be told in training who the users are")
            users: Tensor = self.users  # type: ignore[assignment]  # a buffer
            left_out = left_out | (users == user.unsqueeze(1))
        near = cosine.masked_fill(left_out, -2.0).topk(self.neighbours, dim=1)
        return near.indices, near.values > -2.0


def read_with_llm_cf(
    student: Student, knowledge: Knowledge, training: Examples, settings: LLMCFSettings, *, generator: torch.Generator
) -> None:
    """Give a student LLM-CF's decoder.

    Args:
        student: with initial weights.
        knowledge: with chains of thought, and vectors of the titles.
        training: the examples that the chains are about.
        settings: see there.
        generator: draws the initial weights of the decoder.
    """
    chains = knowledge.texts["chain"]
    assert knowledge.item_vectors is not None  # noqa: S101 - texts come with title vectors
    place = np.argsort(training.example_id)
    rows = place[np.searchsorted(training.example_id, chains.key, sorter=place)]
    titles = torch.from_numpy(knowledge.item_vectors)
    history = torch.from_numpy(training.history[rows].astype(np.int64))
    keys = mean_titles(torch.cat([titles, titles.new_zeros(1, titles.shape[1])]), history)
    reader = ChainReader(
        titles=titles,
        keys=keys,
        chains=torch.from_numpy(chains.vectors),
        users=torch.from_numpy(training.user[rows].astype(np.int64)),
        dim=student.dim,
        settings=settings,
    )
    initialise(reader, generator)
    student.reader = reader


def mean_titles(titles: Tensor, history: Tensor) -> Tensor:
    """Average rows of ``titles`` `[V + 1, Dt]`, the last of them zero, over histories `[B, L]`; `[B, Dt]`."""
    count = (history != len(titles) - 1).sum(dim=1, keepdim=True).clamp(min=1)
    return titles[history].sum(dim=1) / count

"""What every student is: a history becomes a vector, and a vector scores items."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dllm2rec.core.settings import Settings
from dllm2rec.students.initialise import initialise
from dllm2rec.students.item_table import ItemTable, Output, VectorScaling
from dllm2rec.students.text_neighbours import summed


class SharedSettings(Settings):
    """Settings that all students share.

    Attributes:
        dim: size of the embeddings and of the sequence vector.
        dropout: share of values that training drops.
        output, output_bias, vector_scaling, offset, offset_dropout, text_weight, projector_hidden, offset_std,
            projector_std: see `ItemTable`.
        unseen_offset: the offset of an item that training never sees keeps its `random` first value, is `zero`, so that
            its vector is its text alone, or is, after training, that of its `neighbours` by text. An item that is added
            later has none, but for `neighbours`.
        text_neighbours: size of the directions of text vectors that a trained student may have beside its own vectors,
            with a weight chosen on validation; None has none. Ignored without item vectors, without a tied
            output, or if the run's `demand` is `none`.
        transitions: whether a trained student may add how often an item followed those of the history, with a weight
            chosen on validation. Ignored if the run's `demand` is `none`.
    """

    dim: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    output: Output = "separate"
    output_bias: bool | None = None
    vector_scaling: VectorScaling = "standardise"
    offset: bool = True
    offset_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    text_weight: PositiveFloat = 1.0
    projector_hidden: PositiveInt | None = None
    offset_std: Annotated[float, Field(ge=0)] = 0.1
    projector_std: PositiveFloat = 0.1
    unseen_offset: Literal["random", "zero", "neighbours"] = "random"
    text_neighbours: PositiveInt | None = None
    transitions: bool = False

    def table(self, *, num_items: int, item_vectors: Tensor | None) -> ItemTable:
        """Build the item table that these settings describe; its weights are still to be initialised."""
        return ItemTable(
            num_items=num_items,
            dim=self.dim,
            output=self.output,
            output_bias=self.output_bias,
            item_vectors=item_vectors,
            vector_scaling=self.vector_scaling,
            offset=self.offset or item_vectors is None,
            offset_dropout=self.offset_dropout,
            text_weight=self.text_weight,
            projector_hidden=self.projector_hidden,
            offset_std=self.offset_std,
            projector_std=self.projector_std,
        )


class Counted(Protocol):
    """Counts that score the catalogue by the items of histories."""

    def scores(self, history: NDArray[np.integer]) -> NDArray[np.float32]:
        """Score `[B, L]` histories, padded with V. Returns `[B, V]`."""


class Reader(nn.Module, ABC):
    """Adds what texts say to the sequence vector of any student."""

    reads_users: bool

    @abstractmethod
    def forward(self, history: Tensor, user: Tensor | None, *, generator: torch.Generator | None = None) -> Tensor:
        """Return what is added, `[B, D]`; for the arguments see `Student.encode`."""


class Student(nn.Module, ABC):
    """A small sequential recommender: `encode` is its own, how items are scored is shared.

    Args:
        table: the item embeddings, which the student owns from here on.
        history: L, the most items of a history that it looks at; of a longer one it takes the newest L.

    Attributes:
        reader: adds to the sequence vector; None for nearly all students.
        again: what is added to the scores of items that the history holds; where a loss leaves them out, they are left
            out here, too, until validation chooses a weight.
        ever: whether that is the whole history, and not only the newest L that the student reads.
        transitions: counts whose scores are added to its own; None until validation has given them a weight.
    """

    def __init__(self, *, table: ItemTable, history: int) -> None:
        super().__init__()
        if history < 1:
            raise ValueError(f"history must be at least 1, not {history}")
        self.table = table
        self.history = history
        self.reader: Reader | None = None
        self.again = 0.0
        self.ever = False
        self.transitions: Counted | None = None

    @property
    def num_items(self) -> int:
        """V."""
        return self.table.num_items

    @property
    def dim(self) -> int:
        """D."""
        return self.table.dim

    @property
    def width(self) -> int:
        """Size of the vectors that scores are made of, D or, with text neighbours, D + P."""
        return self.table.width

    @property
    def reads_users(self) -> bool:
        """Whether scores depend on who the user is, beside the history."""
        return self.reader is not None and self.reader.reads_users

    @property
    def reads_all(self) -> bool:
        """Whether scores depend on more of a history than the newest L items."""
        return self.ever and self.again != 0.0

    def encode(
        self, history: Tensor, *, user: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Turn histories `[B, L]`, padded on the left with V, into sequence vectors `[B, width]`.

        A history of padding alone is allowed and gives a finite vector. ``user`` `[B]`, rows of the dataset's users,
        matters where `reads_users`. ``generator`` draws the dropout in training, of offsets for all that follows, too;
        None draws it from torch's global generator. Outside training there is no dropout.
        """
        self.table.draw(generator)
        history = self.newest(history)
        embedded = self.table.input(history)
        vector = self.encode_embedded(embedded[..., : self.dim], self.mask(history), generator=generator)
        if self.reader is not None:
            vector = vector + self.reader(history, user, generator=generator)
        return self._widened(vector, embedded)

    def encode_rows(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Do what `encode` does after the look-up, without a reader: rows `[B, l, width]` to `[B, width]`."""
        return self._widened(self.encode_embedded(embedded[..., : self.dim], mask), embedded)

    def _widened(self, vector: Tensor, embedded: Tensor) -> Tensor:
        return vector if self.width == self.dim else torch.cat([vector, summed(embedded[..., self.dim :])], dim=-1)

    @abstractmethod
    def encode_embedded(self, embedded: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Do what is a student's own: all of `encode` but the item table and what is put beside its rows.

        Args:
            embedded: `[B, l, D]`, the vectors of the newest ``l`` <= L items, zero where there is padding.
            mask: bool `[B, l]`, where there is an item.
            generator: see `encode`.
        """

    def forward(self, history: Tensor, user: Tensor | None = None) -> Tensor:
        """Score the whole catalogue for histories `[B, any]` of users `[B]`, see `encode`; returns `[B, V]`."""
        newest = self.newest(history)
        scores = self.scores(self.encode(newest, user=user))
        if self.transitions is not None:
            scores = scores + torch.from_numpy(self.transitions.scores(newest.numpy(force=True))).to(scores)
        return add_again(scores, history if self.ever else newest, self.again)

    def scores(self, hidden: Tensor) -> Tensor:
        """Score every item, `[B, width]` to `[B, V]`."""
        weight, bias = self.output_matrix()
        return hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return what scores are made of: weights `[V, width]` and biases `[V]` (None: no bias)."""
        return self.table.output_matrix()

    def score_items(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the items `[B, K]` for sequence vectors `[B, width]` by gather; returns `[B, K]`."""
        weight, bias = self.table.output_rows(items)
        scores = (hidden.unsqueeze(1) @ weight.transpose(1, 2)).squeeze(1)
        return scores if bias is None else scores + bias

    def score_shared(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Score the same items `[S]` for all sequence vectors `[B, width]`; returns `[B, S]`."""
        weight, bias = self.table.output_rows(items)
        return hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)

    def embed(self, items: Tensor) -> Tensor:
        """Embed items as histories see them, `[...]` to `[..., width]`; padding becomes the zero vector."""
        return self.table.input(items)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from ``generator``; the same generator state gives the same weights."""
        for name, child in self.named_children():
            if name != "table":
                initialise(child, generator)
        self.table.initialise(generator)

    def newest(self, history: Tensor) -> Tensor:
        """Return the newest L columns of histories `[B, any]`.

        Raises:
            ValueError: not a matrix, or no column.
        """
        if history.ndim != 2 or history.shape[1] == 0:
            raise ValueError(f"histories must be [B, L], not {list(history.shape)}")
        return history[:, -self.history :]

    def mask(self, history: Tensor) -> Tensor:
        """Return where a history holds an item, bool `[B, L]`."""
        return history != self.num_items


def add_again(scores: Tensor, history: Tensor, again: float) -> Tensor:
    """Add ``again`` to the scores `[B, V]` of the items of histories `[B, L]`, once each; padding is V."""
    if again == 0.0:
        return scores
    padded = torch.nn.functional.pad(scores, (0, 1))
    return padded.scatter(1, history, padded.gather(1, history) + again)[:, :-1]


def dropout(values: Tensor, probability: float, *, training: bool, generator: torch.Generator | None) -> Tensor:
    """Drop values with ``probability`` and scale up the others, drawing from ``generator`` (None: the global one)."""
    if not training or probability == 0.0:
        return values
    keep = torch.empty_like(values).bernoulli_(1.0 - probability, generator=generator)
    return values * keep.div_(1.0 - probability)

"""Item embeddings: an offset per item plus the projection of its text vector (Cui et al. 2024, eqs. 12, 13)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dllm2rec.core.arrays import borrowed_offsets
from dllm2rec.students.projection import Projector, TextProjector
from dllm2rec.students.text_neighbours import Directions, basis_of, directions

Output = Literal["separate", "tied"]
VectorScaling = Literal["standardise", "unit", "none"]

LARGE = 50_000
"""A table of more rows gets sparse gradients of the rows that a step looks up: dense ones, `[V, D]` for each look-up,
would cost more than all else. The training loop adds them up to a dense one."""


class ItemTable(nn.Module):
    """The one place where items become vectors: ``e_i = b_i + w_e g(z_i)``, or ``e_i = b_i`` without text vectors.

    Only the distinct rows that a call needs are projected. The whole table is projected for `output_matrix` of a tied
    table and for `fold`, which outside training keeps its result until a parameter changes.

    The text vectors are a buffer that is not part of the state: whoever loads a state builds the table from the same
    vectors first. Neither are ``shift`` `[V]`, None at first, which a trained table adds to all output biases, and
    ``near`` `[V, P]`, None at first, which a trained tied table puts beside all its rows (see `text_neighbours`).

    Args:
        num_items: V.
        dim: D.
        output: `separate`: the output layer has its own weights and knows nothing of the text, as in the authors' code;
            an item that training never saw can't be recommended then. `tied`: the output weights are the
            items' vectors.
        output_bias: one learned bias per item in the output; None means yes if separate (as a linear layer has), no if
            tied.
        item_vectors: ``z``, `[V, Dt]`, or None.
        vector_scaling: `standardise` centres each column of ``z`` over the items and scales it to unit variance, so
            that neither the norm of the vectors nor one loud dimension of a language model's state decides. `unit`
            then divides all by ``sqrt(Dt)``: an optimiser as Adam moves each weight of ``g`` by about its learning
            rate, and this way ``g(z)`` as far as ``b``, and not ``sqrt(Dt)`` times as far.
        offset: False leaves ``b_i``, what is learned of an item beside its text, out (only with item vectors).
        offset_dropout: share of the items that are their text alone in a step of training, as an item is that comes
            later; another draw each step (after DropoutNet, Volkovs et al., NeurIPS 2017).
        text_weight: ``w_e``, of the projected text in the vector of an item, ``e_i = b_i + w_e g(z_i)``.
        projector_hidden: None makes ``g`` linear; a size puts one hidden layer with ReLU in between.
        offset_std: standard deviation of the first ``b_i``.
        projector_std: standard deviation of the first ``g(z_i)`` where the columns of ``z`` vary as much as
            ``vector_scaling`` means them to, or by 1 where that is `none`.

    Raises:
        ValueError: wrong shape, non-finite vectors, or nothing left to embed items with.
    """

    item_vectors: Tensor | None

    def __init__(
        self,
        *,
        num_items: int,
        dim: int,
        output: Output = "separate",
        output_bias: bool | None = None,
        item_vectors: Tensor | None = None,
        vector_scaling: VectorScaling = "standardise",
        offset: bool = True,
        offset_dropout: float = 0.0,
        text_weight: float = 1.0,
        projector_hidden: int | None = None,
        offset_std: float = 0.1,
        projector_std: float = 0.1,
    ) -> None:
        super().__init__()
        _check(num_items, item_vectors, offset)
        self.num_items, self.dim, self.text_weight = num_items, dim, text_weight
        self.offset_std, self.projector_std = offset_std, projector_std
        self.offset_dropout = offset_dropout
        self.offset = nn.Parameter(torch.zeros(num_items, dim)) if offset else None
        vectors = None if item_vectors is None else scale_vectors(item_vectors, vector_scaling)
        self.vector_scaling = vector_scaling
        self.vector_std = 1.0 if vectors is None or vector_scaling != "unit" else vectors.shape[1] ** -0.5
        self.register_buffer("item_vectors", vectors, persistent=False)
        self.projector: TextProjector | None = None
        if vectors is not None:
            self.projector = Projector(size=vectors.shape[1], hidden=projector_hidden, dim=dim)
        self.output_weight = nn.Parameter(torch.zeros(num_items, dim)) if output == "separate" else None
        has_bias = output == "separate" if output_bias is None else output_bias
        self.output_bias = nn.Parameter(torch.zeros(num_items)) if has_bias else None
        self._folded: tuple[tuple[int, ...], Tensor | None, Tensor] | None = None
        self._kept: Tensor | None = None
        self.shift: Tensor | None
        self.near: Tensor | None
        self.register_buffer("shift", None, persistent=False)
        self.register_buffer("near", None, persistent=False)
        self._directions: tuple[tuple[int, int | None], Directions] | None = None

    @property
    def tied(self) -> bool:
        """Whether the output uses the same vectors as the input."""
        return self.output_weight is None

    @property
    def width(self) -> int:
        """Size of a row, D or, with text neighbours, D + P."""
        return self.dim if self.near is None else self.dim + self.near.shape[1]

    def input(self, items: Tensor) -> Tensor:
        """Embed items, `[...]` to `[..., width]`; padding becomes the zero vector."""
        embedded = self._lookup(items.clamp(max=self.num_items - 1))
        return embedded.masked_fill((items == self.num_items).unsqueeze(-1), 0.0)

    def output_rows(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the weights `[..., width]` and biases `[...]` (None: no bias) of items `[...]` without padding."""
        weight = self._lookup(items) if self.output_weight is None else _rows(self.output_weight, items)
        bias = self._bias()
        return weight, None if bias is None else bias[items]

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return the output weights `[V, width]` and biases `[V]` (None: no bias) of the whole catalogue."""
        return self._table() if self.output_weight is None else self.output_weight, self._bias()

    @torch.no_grad()
    def fold(self) -> Tensor:
        """Return every row, `[V, width]`, without gradient: what a student needs once the text is gone."""
        return self._table()

    @torch.no_grad()
    def text_directions(self, size: int, *, first: int | None = None) -> Directions | None:
        """Return the directions of the text vectors in at most ``size`` dimensions; None without text.

        Args:
            size: P.
            first: so many first items, None for all, are those of training: by them the vectors are scaled, and they
                choose the basis. So items that come later change nothing for them.
        """
        if self.item_vectors is None:
            return None
        if self._directions is None or self._directions[0] != (size, first):
            known = self.item_vectors[:first]
            mean, deviation = scale_of(known, self.vector_scaling)
            basis = basis_of((known - mean) / deviation, size)
            near = directions((self.item_vectors - mean) / deviation, basis)
            self._directions = (size, first), Directions(near=near, basis=basis)
        return self._directions[1]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial weights of the offsets, the projector and the output layer."""
        if self.offset is not None:
            self.offset.normal_(std=self.offset_std, generator=generator)
        if self.projector is not None:
            self.projector.initialise(generator, std=self.projector_std, vector_std=self.vector_std)
        bound = self.dim**-0.5
        if self.output_weight is not None:
            self.output_weight.uniform_(-bound, bound, generator=generator)
        if self.output_bias is not None:
            self.output_bias.zero_()

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw which offsets a step of training has; without text, or outside training, all are there."""
        self._kept = None
        if self.training and self.offset_dropout > 0 and self.offset is not None and self.projector is not None:
            kept = torch.rand(self.num_items, 1, generator=generator) >= self.offset_dropout
            self._kept = kept.to(self.offset)

    @torch.no_grad()
    def clear_offsets(self, items: Tensor) -> None:
        """Set the offsets of items, given by index or as a mask `[V]`, to zero."""
        if self.offset is not None:
            self.offset[items] = 0.0

    @torch.no_grad()
    def borrow_offsets(self, seen: Tensor) -> None:
        """Give items without an offset of their own that of their neighbours by text, see `borrowed_offsets`.

        Args:
            seen: bool `[V]`, which items have learned one. Without text, or without offsets, nothing happens.
        """
        if self.projector is None or self.offset is None or not bool(seen.any()) or bool(seen.all()):
            return
        projected = self.projector(self.item_vectors, None) * self.text_weight
        new, known, offsets = (some.cpu().numpy() for some in (projected[~seen], projected[seen], self.offset[seen]))
        found = borrowed_offsets(new, known=known, offsets=offsets)
        self.offset[~seen] = torch.from_numpy(found).to(self.offset)

    def train(self, mode: bool = True) -> "ItemTable":
        """Switch between training and evaluation; either way the folded table is made anew when it is next needed."""
        self._folded = self._kept = None
        return super().train(mode)

    def _widened(self, rows: Tensor, items: Tensor | None = None) -> Tensor:
        if self.near is None:
            return rows
        return torch.cat([rows, self.near if items is None else F.embedding(items, self.near)], dim=-1)

    def _bias(self) -> Tensor | None:
        if self.shift is None or self.output_bias is None:
            return self.output_bias if self.shift is None else self.shift
        return self.output_bias + self.shift

    def _lookup(self, items: Tensor) -> Tensor:
        if self.item_vectors is None or not (self.training or torch.is_grad_enabled()):
            return _rows(self._table(), items)
        distinct, place = torch.unique(items, return_inverse=True)
        return self._widened(F.embedding(place, self._embed(distinct)), items)

    def _table(self) -> Tensor:
        if self.item_vectors is None:
            assert self.offset is not None  # noqa: S101 - checked when built
            return self.offset
        if self.training or torch.is_grad_enabled():
            return self._widened(self._embed(None))
        versions = tuple(tensor._version for tensor in self.parameters())
        if self._folded is None or self._folded[0] != versions or self._folded[1] is not self.near:
            self._folded = versions, self.near, self._widened(self._embed(None))
        return self._folded[2]

    def _embed(self, rows: Tensor | None) -> Tensor:
        """Compute ``e`` of the given rows, `[N, D]`, or of all items, `[V, D]`."""
        assert self.projector is not None  # noqa: S101 - there are vectors
        projected: Tensor = self.projector(self.item_vectors, rows) * self.text_weight
        if self.offset is None:
            return projected
        offset: Tensor = self.offset if rows is None else _rows(self.offset, rows)
        if self._kept is None:
            return projected + offset
        return projected + offset * (self._kept if rows is None else F.embedding(rows, self._kept))


def _rows(table: Tensor, items: Tensor) -> Tensor:
    return F.embedding(items, table, sparse=table.requires_grad and len(table) > LARGE)


def _check(num_items: int, item_vectors: Tensor | None, offset: bool) -> None:
    if num_items < 1:
        raise ValueError(f"a table needs at least one item, not {num_items}")
    if item_vectors is None:
        if not offset:
            raise ValueError("without item vectors the offset is all there is; it can't be left out")
        return
    if item_vectors.ndim != 2 or len(item_vectors) != num_items or item_vectors.shape[1] == 0:
        raise ValueError(f"item vectors must be [{num_items}, Dt], not {list(item_vectors.shape)}")
    if not torch.isfinite(item_vectors).all():
        bad = int((~torch.isfinite(item_vectors).all(dim=1)).nonzero()[0])
        raise ValueError(f"item vectors must be finite; row {bad} is not")


def scale_vectors(vectors: Tensor, scaling: VectorScaling) -> Tensor:
    """Put text vectors `[V, Dt]` on the scale that `ItemTable` says, as float32."""
    vectors = vectors.detach().to(torch.float32)
    if scaling == "none":
        return vectors
    mean, deviation = scale_of(vectors, scaling)
    return (vectors - mean) / deviation


def scale_of(vectors: Tensor, scaling: VectorScaling) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from text vectors `[V, Dt]` and what they are then divided by, each `[Dt]`."""
    if scaling == "none":
        return torch.zeros(vectors.shape[1]), torch.ones(vectors.shape[1])
    deviation, mean = torch.std_mean(vectors.detach().to(torch.float32), dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, 1.0)
    return mean, deviation * vectors.shape[1] ** 0.5 if scaling == "unit" else deviation

"""HTD, hierarchical topology distillation (Kang et al., KDD 2021)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.hint import hint_loss
from dllm2rec.distillation.vectors import VectorDistiller, draw_weights, halfway
from dllm2rec.students.item_table import VectorScaling


class HTDSettings(Settings):
    """HTD; weight, balance and groups are the original's.

    Attributes:
        lambda_d: weight of the term.
        balance: a, share of the topology; the rest is the hint's.
        groups: K.
        hidden: size of the hidden layer of each f_k; None puts it halfway between the two spaces.
        temperature_start: T of the first epoch.
        temperature_end: T after `anneal_epochs` epochs; on the way there it falls by the same factor each epoch.
        anneal_epochs: epochs that the fall takes.
        items_per_step: most items a step; None takes all of the batch, at a cost that grows with items x groups.
        vector_scaling: of the teacher's vectors, as `student.vector_scaling`.
    """

    kind: Literal["htd"] = "htd"
    lambda_d: Annotated[float, Field(ge=0)] = 1e-3
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5
    groups: PositiveInt = 30
    hidden: PositiveInt | None = None
    temperature_start: PositiveFloat = 1.0
    temperature_end: PositiveFloat = 1e-10
    anneal_epochs: PositiveInt = 100
    items_per_step: PositiveInt | None = 256
    vector_scaling: VectorScaling = "standardise"


class HTDDistiller(VectorDistiller):
    """``a L_topology + (1 - a) L_hint`` over distinct items of a batch.

    Every item belongs to one of K groups: ``alpha = softmax(Linear(z))``, ``g = softmax((log alpha + Gumbel) / T)``,
    with T annealed until g picks one group. ``L_hint = sum_i || z_i - sum_k g_ik f_k(e_i) ||^2``, f_k linear, ReLU,
    linear. For the topology see `topology_loss`; there the group of an item is the one with the largest g.

    Relations: with one group and ``a = 0`` this is Hint.

    Deviations: the teacher has no table of users, so only items are distilled. At most `items_per_step` items of the
    batch's histories and targets are looked at, drawn anew each step: K networks over all of them would cost far more
    than the student. The sums are divided by the batch size, as our base loss is a mean over the batch. With a separate
    output layer it acts on the input side only.

    Args:
        vectors: `[V, Dt]`, the teacher's, scaled.
        dim: D of the student.
        settings: see there.
        generator: draws the initial weights.
    """

    def __init__(self, *, vectors: Tensor, dim: int, settings: HTDSettings, generator: torch.Generator) -> None:
        super().__init__(vectors=vectors, weight=settings.lambda_d, items_per_step=settings.items_per_step)
        size, groups = vectors.shape[1], settings.groups
        hidden = settings.hidden or halfway(dim, size)
        self.settings = settings
        self.temperature = settings.temperature_start
        self.selector = draw_weights(size, groups, inputs=2 * size, generator=generator)
        self.selector_bias = nn.Parameter(torch.zeros(groups))
        self.first = draw_weights(dim, groups * hidden, inputs=dim, generator=generator)
        self.first_bias = nn.Parameter(torch.zeros(groups * hidden))
        self.second = draw_weights(groups * hidden, size, inputs=hidden, generator=generator)
        self.second_bias = nn.Parameter(torch.zeros(groups, size))

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Cool down; see `Distiller`."""
        settings = self.settings
        done = min(1.0, (number - 1) / settings.anneal_epochs)
        self.temperature = settings.temperature_start * (settings.temperature_end / settings.temperature_start) ** done

    def loss(self, embedded: Tensor, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of m items."""
        noise = -torch.empty(len(vectors), self.settings.groups).exponential_(generator=generator).log()
        shares = torch.log_softmax(vectors @ self.selector + self.selector_bias, dim=1) + noise.to(vectors)
        shares = torch.softmax(shares / self.temperature, dim=1)
        topology = topology_loss(embedded, vectors, shares.argmax(dim=1), groups=self.settings.groups)
        a = self.settings.balance
        return a * topology + (1 - a) * hint_loss(self._guess(embedded, shares), vectors)

    def _guess(self, embedded: Tensor, shares: Tensor) -> Tensor:
        """Return ``sum_k g_k f_k(e)``, `[m, Dt]`: the second layers of all f_k are one product of matrices."""
        inner = torch.relu(embedded @ self.first + self.first_bias).view(*shares.shape, -1)
        return (inner * shares.unsqueeze(2)).flatten(1) @ self.second + shares @ self.second_bias


def topology_loss(embedded: Tensor, vectors: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """Squared differences between the cosine similarities of the student and of the teacher.

    They are summed over the ordered pairs of items of the same group, where the teacher's similarity is positive, and
    over all items and all groups that have an item here, a group standing for itself by the mean of its items, through
    which no gradient passes.

    Args:
        embedded: `[m, D]`, the student's.
        vectors: `[m, Dt]`, the teacher's.
        group: `[m]`, from 0 to ``groups - 1``.
        groups: K.

    Returns:
        A scalar.
    """
    member = F.one_hot(group, groups).to(embedded)
    teacher, student = (_cosine(space, space) for space in (vectors, embedded))
    inside = (member @ member.T > 0) & (teacher > 0)
    pairs = ((teacher - student).square() * inside).sum()
    teacher, student = (_cosine(space, _means(space.detach(), member)) for space in (vectors, embedded))
    return pairs + ((teacher - student).square() * (member.sum(dim=0) > 0)).sum()


def _means(values: Tensor, member: Tensor) -> Tensor:
    return member.T @ values / member.sum(dim=0).clamp(min=1).unsqueeze(1)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T

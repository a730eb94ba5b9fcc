"""KAR (Xi et al., RecSys 2024): a student that reads what a language model says about items and users."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from dllm2rec.core.settings import Settings
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.knowledge.texts import Texts
from dllm2rec.students.base import Reader, Student
from dllm2rec.students.initialise import initialise
from dllm2rec.students.item_table import VectorScaling, scale_vectors
from dllm2rec.students.projection import TextProjector


class KARSettings(Settings):
    """KAR.

    Attributes:
        weight: of what is added to item and sequence vectors. The original has none; 0 is the plain student.
        shared_experts: that read texts about items and about users alike.
        specific_experts: of each of the two.
        hidden, size: of an expert's hidden layer and of what it says.
        vector_scaling: of the vectors of the texts, as `student.vector_scaling`.
    """

    kind: Literal["kar"] = "kar"
    weight: Annotated[float, Field(ge=0)] = 1.0
    shared_experts: NonNegativeInt = 2
    specific_experts: PositiveInt = 5
    hidden: PositiveInt = 128
    size: PositiveInt = 32
    vector_scaling: VectorScaling = "standardise"


class HybridExperts(TextProjector):
    """The adaptor: ``a = sum_k softmax(G z)_k E_k(z)`` over shared and specific experts, then a linear map to D.

    Each expert ``E_k`` is Linear, ReLU, Linear; items and users have gates and specific experts of their own. What is
    called as a projector is the side of the items.

    Relations: DLLM2Rec's projector is one linear map of a language model's states; KAR's experts read texts that the
    language model wrote, and read users too.

    Deviations: the original joins the adaptor's output to the fields of a click model; here it is added, by a linear
    map, to the embedding of an item and to the sequence vector, which is what joining them before a linear layer does.
    With a separate output layer the items' part acts on the input only. An item or user without a text gets nothing.

    Args:
        size: of a text vector, Dt.
        dim: D.
        known: bool `[V]`, items that there is a text about.
        settings: see there.
    """

    def __init__(self, *, size: int, dim: int, known: Tensor, settings: KARSettings) -> None:
        super().__init__()

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(nn.Linear(size, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, settings.size))
                for _ in range(count)
            )

        count = settings.shared_experts + settings.specific_experts
        self.weight = settings.weight
        self.shared = experts(settings.shared_experts)
        self.of_items, self.of_users = experts(settings.specific_experts), experts(settings.specific_experts)
        self.item_gate, self.user_gate = nn.Linear(size, count), nn.Linear(size, count)
        self.item_join, self.user_join = (nn.Linear(settings.size, dim, bias=False) for _ in range(2))
        self.register_buffer("known", known.float(), persistent=False)

    def forward(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Read the texts about all items, `[V, Dt]` to `[V, D]`, or about those in ``rows`` `[N]`; `[N, D]`."""
        read = vectors if rows is None else vectors[rows]
        known: Tensor = self.known if rows is None else self.known[rows]  # type: ignore[assignment, index]  # a buffer
        said = self._mix(read, self.of_items, self.item_gate)
        result: Tensor = self.item_join(said) * (self.weight * known.unsqueeze(-1))
        return result

    def users(self, vectors: Tensor) -> Tensor:
        """Read texts about users, `[N, Dt]` to `[N, D]`."""
        result: Tensor = self.weight * self.user_join(self._mix(vectors, self.of_users, self.user_gate))
        return result

    def initialise(self, generator: torch.Generator, *, std: float, vector_std: float = 1.0) -> None:  # noqa: ARG002 - Xavier
        """Draw all weights."""
        initialise(self, generator)

    def _mix(self, vectors: Tensor, specific: nn.ModuleList, gate: nn.Linear) -> Tensor:
        said = torch.stack([expert(vectors) for expert in (*self.shared, *specific)], dim=1)
        return (torch.softmax(gate(vectors), dim=1).unsqueeze(-1) * said).sum(dim=1)


class PreferenceReader(Reader):
    """Adds what the text about a user says to the sequence vector; nothing for a user without a text.

    Args:
        vectors: `[U, Dt]` of the texts, scaled.
        known: bool `[U]`, users that there is a text about.
        project: from `[N, Dt]` to `[N, D]`.
    """

    reads_users = True

    def __init__(self, *, vectors: Tensor, known: Tensor, project: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._project = project
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("known", known.float(), persistent=False)

    def forward(
        self,
        history: Tensor,  # noqa: ARG002 - not looked at
        user: Tensor | None,
        *,
        generator: torch.Generator | None = None,  # noqa: ARG002 - nothing is drawn
    ) -> Tensor:
        """Return what is added, `[B, D]`.

        Raises:
            ValueError: nobody says who the users are.
        """
        if user is None:
            raise ValueError("a student with KAR must be told who the users are")
        known: Tensor = self.known[user]  # type: ignore[index]  # a buffer
        return self._project(self.vectors[user]) * known.unsqueeze(-1)  # type: ignore[index]


def read_with_kar(
    student: Student, knowledge: Knowledge, settings: KARSettings, *, num_users: int, generator: torch.Generator
) -> None:
    """Give a student KAR's adaptor; its item table was built on `fact_vectors`.

    Args:
        student: with initial weights.
        knowledge: with texts about items and users.
        settings: see there.
        num_users: U.
        generator: draws the initial weights of the adaptor.
    """
    _, items = knowledge.texts["item"].spread(student.num_items)
    preferences = knowledge.texts["user"]
    size = preferences.vectors.shape[1]
    experts = HybridExperts(size=size, dim=student.dim, known=torch.from_numpy(items), settings=settings)
    experts.initialise(generator, std=1.0)
    student.table.projector = experts
    vectors, users = _filled(preferences, num_users)
    scaled = scale_vectors(torch.from_numpy(vectors), settings.vector_scaling)
    student.reader = PreferenceReader(vectors=scaled, known=torch.from_numpy(users), project=experts.users)


def fact_vectors(knowledge: Knowledge, num_items: int) -> NDArray[np.float32]:
    """Return the vectors of the texts about items, `[V, Dt]`; their mean where there is none."""
    return _filled(knowledge.texts["item"], num_items)[0]


def _filled(texts: Texts, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    vectors, known = texts.spread(count)
    vectors[~known] = texts.vectors.mean(axis=0)
    return vectors, known

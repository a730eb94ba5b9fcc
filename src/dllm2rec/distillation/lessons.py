"""What a teacher says about the training examples, and what every method on its lists does with a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.data.examples import Past
from dllm2rec.distillation.base import Encoder
from dllm2rec.knowledge.store import Labels
from dllm2rec.losses.base import Scorer

ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The P training examples that a teacher labelled.

    Attributes:
        ranked_items: `[P, M]` int32, the teacher's lists, best first, distinct items within a list.
        distances: `[P, M]` float32, of the listed items; smaller is better.
        target_distance: `[P]` float32, of what really came next.
        history: `[P, L]` int64, padded on the left with V.
        target: `[P]` int64, what really came next.
        time: `[P]` float64, seconds, when it came.
        place: `[E]` int64, for each of all training examples its place among the P, or -1.
        num_items: V.
        past: of the P, all that was chosen before, the history included; None where nothing more is known.
    """

    ranked_items: Tensor
    distances: Tensor
    target_distance: Tensor
    history: Tensor
    target: Tensor
    time: Tensor
    place: Tensor
    num_items: int
    past: Past | None = None

    def __post_init__(self) -> None:
        rows = len(self.target)
        if self.ranked_items.shape != self.distances.shape or self.ranked_items.ndim != 2:
            raise ValueError(f"lists {list(self.ranked_items.shape)}, distances {list(self.distances.shape)}: unequal")
        if not len(self.ranked_items) == len(self.history) == rows:
            raise ValueError(f"{len(self.ranked_items)} lists, {len(self.history)} histories, {rows} targets: unequal")
        if self.place.ndim != 1 or bool((self.place >= rows).any()):
            raise ValueError(f"place must be a vector of places below {rows}")

    def __len__(self) -> int:
        return len(self.target)

    def parts(self, rows: int = ROWS_AT_ONCE) -> Iterator[slice]:
        """Cut the P examples into pieces of so many rows, so that what is drawn at once stays small."""
        return (slice(start, start + rows) for start in range(0, len(self), rows))


def take_lessons(labels: Labels, *, rows: NDArray[np.int64], training: Examples, depth: int) -> Lessons:
    """Pick what the training examples need of a teacher's labels.

    Args:
        labels: of the teacher.
        rows: for each training example its row in ``labels``, or -1.
        training: the training examples.
        depth: M, how much of each list is kept.
    """
    known = np.flatnonzero(rows >= 0)
    place = np.full(len(rows), -1, dtype=np.int64)
    place[known] = np.arange(len(known))
    return Lessons(
        ranked_items=torch.from_numpy(labels.ranked_items[:, :depth][rows[known]].astype(np.int32)),
        distances=torch.from_numpy(labels.distances[:, :depth][rows[known]].astype(np.float32)),
        target_distance=torch.from_numpy(labels.target_distance[rows[known]].astype(np.float32)),
        history=torch.from_numpy(training.history[known].astype(np.int64)),
        target=torch.from_numpy(training.target[known].astype(np.int64)),
        time=torch.from_numpy(training.time[known].astype(np.float64)),
        place=torch.from_numpy(place),
        num_items=training.num_items,
        past=None if training.past is None else training.past.take(known),
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """The n examples of a batch that a distiller looks at.

    Attributes:
        place: `[n]`, their places in the lessons; -1 for one without a label, see `ListDistiller.whole_batches`.
        target: `[n]`, the item that came next.
        generator: draws what is drawn.
    """

    place: Tensor
    target: Tensor
    generator: torch.Generator


class ListDistiller(ABC):
    """``lambda_d / B sum_s loss(s)`` over the labelled examples s of a batch of B.

    As the base loss is a mean over the batch, a labelled example counts the same beside its own recommendation loss
    however many others are labelled. An example without a label adds nothing.

    Args:
        lessons: of the teacher.
        weight: ``lambda_d``; with 0 the term is exactly 0 and nothing is drawn.

    Attributes:
        whole_batches: whether `losses` gets all examples of a batch that has a labelled one, not these alone.
    """

    whole_batches = False

    def __init__(self, *, lessons: Lessons, weight: float) -> None:
        self.lessons = lessons
        self.weight = weight

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        """Draw for the epoch what the method samples; see `Distiller`."""
        if self.weight != 0.0:
            self.draw(student, number, generator)

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return ``lambda_d`` times the distillation loss of a batch; see `Distiller`."""
        size, place, target = len(hidden), self.lessons.place[batch.row.cpu()], batch.target
        labelled = (place >= 0).nonzero().squeeze(1)
        if self.weight == 0.0 or len(labelled) == 0:
            return hidden.new_zeros(())
        if not self.whole_batches:
            hidden, place, target = hidden[labelled], place[labelled], target[labelled]
        step = Step(place=place, target=target, generator=generator)
        return self.weight * self.losses(scorer, hidden, step).sum() / size

    def draw(self, student: Encoder, number: int, generator: torch.Generator) -> None:  # noqa: B027 - some draw nothing
        """Draw for all labelled examples what epoch ``number`` needs."""

    @abstractmethod
    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the loss of each example, `[n]`, or its parts, `[n, K]`; 0 for one without a label.

        Args:
            scorer: the student.
            hidden: its sequence vectors `[n, D]`.
            step: the examples.
        """

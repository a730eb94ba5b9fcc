"""A trained student takes in a larger catalogue; what it says of the old items stays the same."""

import torch
from torch import Tensor

from dllm2rec.students.base import Student
from dllm2rec.students.item_table import VectorScaling, scale_of
from dllm2rec.students.projection import Projector

_SAME = 1e-3
"""Difference between item vectors, in their standard deviation, that rounding explains."""


@torch.no_grad()
def grow(
    student: Student,
    trained: Student,
    *,
    scaling: VectorScaling,
    item_vectors: Tensor | None = None,
    trained_vectors: Tensor | None = None,
) -> None:
    """Give a student the weights of one with fewer items, which are the first of its own.

    Where the table reads text, a new item is its text alone, as `add-items` has it: its offset is zero. Elsewhere new
    rows keep their initial weights. Text vectors are scaled by means and deviations over the catalogue, which the new
    items move; the projector takes that up, so that every old vector is what it was. Where a teacher that was taught
    anew has other vectors of the old items, their offsets take up the rest.

    Args:
        student: built for the larger catalogue, with the same settings; changed in place.
        trained: the old one.
        scaling: of the text vectors, see `ItemTable`.
        item_vectors: `[V, Dt]`, as they are before scaling; None where no text is read.
        trained_vectors: `[v, Dt]`, the same of the old catalogue.

    Raises:
        ValueError: the old student has more items, or another shape, or other text and no offsets.
    """
    old, count = trained.state_dict(), trained.num_items
    if count > student.num_items:
        raise ValueError(f"a student of {student.num_items} items can't hold the {count} of the trained one")
    for name, weight in student.state_dict().items():
        known = old[name]
        if weight.shape == known.shape:
            weight.copy_(known)
        elif weight.shape[1:] == known.shape[1:] and (len(weight), len(known)) == (student.num_items, count):
            weight[:count] = known
        else:
            raise ValueError(f"{name} is {list(weight.shape)}, {list(known.shape)} in the trained student")
    projector = student.table.projector
    if not isinstance(projector, Projector) or item_vectors is None or trained_vectors is None:
        return
    student.table.clear_offsets(torch.arange(count, student.num_items))
    mean, deviation = scale_of(item_vectors, scaling)
    old_mean, old_deviation = scale_of(trained_vectors, scaling)
    weight = projector.first.weight
    projector.first.bias.add_(weight @ ((mean - old_mean) / old_deviation))
    weight.mul_(deviation / old_deviation)
    known = trained.table.fold()[:, : student.dim]
    rest = known - student.table.fold()[:count, : student.dim]
    if student.table.offset is not None:
        student.table.offset[:count] += rest
    elif float(rest.abs().max()) > _SAME * float(known.std()):
        raise ValueError("the teacher has other vectors of the old items, and the student no offsets to make up for it")

"""A student with a larger catalogue says the same of the items it knew."""

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.growth import grow
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.transformer import TransformerSettings

OLD, NEW, SIZE = 20, 26, 12
VECTORS = torch.randn(NEW, SIZE, generator=torch_generator(0, "vectors")) * 3 + 1


def student(items: int, seed: int, vectors: torch.Tensor | None, **options: object) -> Student:
    settings = TransformerSettings(dim=8, inner=16, **options)  # type: ignore[arg-type]
    generator = torch_generator(seed, "student")
    return build_student(settings, num_items=items, history=5, item_vectors=vectors, generator=generator).eval()


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("output", ["tied", "separate"])
def test_old_items_score_as_before(hidden: int | None, output: str) -> None:
    options = {"output": output, "projector_hidden": hidden}
    trained = student(OLD, 1, VECTORS[:OLD], **options)
    torch.nn.init.normal_(trained.table.projector.first.bias)  # type: ignore[union-attr]
    grown = student(NEW, 2, VECTORS, **options)

    grow(grown, trained, scaling="standardise", item_vectors=VECTORS, trained_vectors=VECTORS[:OLD])

    history = torch.tensor([[3, 4, 5, 6, 7], [0, 1, 2, 3, 19]])
    with torch.no_grad():
        torch.testing.assert_close(grown(history)[:, :OLD], trained(history), rtol=1e-4, atol=1e-4)


def test_a_new_item_is_its_text_alone() -> None:
    vectors = VECTORS.clone()
    vectors[OLD] = vectors[4]
    trained = student(OLD, 1, vectors[:OLD], output="tied")
    with torch.no_grad():
        trained.table.clear_offsets(torch.tensor([4]))
    grown = student(NEW, 2, vectors, output="tied")

    grow(grown, trained, scaling="standardise", item_vectors=vectors, trained_vectors=vectors[:OLD])

    table = grown.table.fold()
    torch.testing.assert_close(table[OLD], table[4])


def test_old_items_score_as_before_whatever_a_teacher_says_of_them_now() -> None:
    trained = student(OLD, 1, VECTORS[:OLD], output="tied")
    other = torch.randn(NEW, SIZE, generator=torch_generator(3, "other"))
    grown = student(NEW, 2, other, output="tied")

    grow(grown, trained, scaling="standardise", item_vectors=other, trained_vectors=VECTORS[:OLD])

    torch.testing.assert_close(grown.table.fold()[:OLD], trained.table.fold(), rtol=1e-4, atol=1e-5)
    bare, larger = (
        student(items, 1, vectors, offset=False) for items, vectors in ((OLD, VECTORS[:OLD]), (NEW, VECTORS))
    )
    grow(larger, bare, scaling="standardise", item_vectors=VECTORS, trained_vectors=VECTORS[:OLD])
    larger = student(NEW, 1, other, offset=False)
    with pytest.raises(ValueError, match="other vectors of the old items"):
        grow(larger, bare, scaling="standardise", item_vectors=other, trained_vectors=VECTORS[:OLD])


def test_a_student_without_text_keeps_first_weights_for_new_items() -> None:
    trained, grown = student(OLD, 1, None, output="tied"), student(NEW, 2, None, output="tied")
    first = grown.table.fold()[OLD:].clone()

    grow(grown, trained, scaling="standardise")

    torch.testing.assert_close(grown.table.fold()[:OLD], trained.table.fold())
    torch.testing.assert_close(grown.table.fold()[OLD:], first)


def test_another_student_is_refused() -> None:
    with pytest.raises(ValueError, match="can't hold"):
        grow(student(OLD, 1, None), student(NEW, 1, None), scaling="standardise")
    wider = build_student(
        GRU4RecSettings(dim=16), num_items=OLD, history=5, item_vectors=None, generator=torch_generator(0, "wider")
    )
    narrow = build_student(
        GRU4RecSettings(dim=8), num_items=OLD, history=5, item_vectors=None, generator=torch_generator(0, "narrow")
    )
    with pytest.raises(ValueError, match="in the trained student"):
        grow(wider, narrow, scaling="standardise")

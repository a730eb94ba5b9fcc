"""Text neighbours inside a student: scores by a slow loop, and a basis that loses the least."""

import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.factory import StudentSettings, build_student
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.students.text_neighbours import basis_of, directions, neighbour_scores
from dllm2rec.students.transformer import TransformerSettings
from dllm2rec.teachers.references import TextSettings, fit_text

V, SIZE, L = 14, 6, 4
VECTORS = torch.randn(V, SIZE, generator=torch_generator(0, "vectors")) * torch.tensor([5, 3, 1, 1, 0.5, 0.1]) + 1
HISTORIES = torch.tensor([[V, V, 3, 4], [0, 1, 2, 1], [V, V, V, V]])


@pytest.mark.parametrize(
    "settings", [kind(dim=8, output="tied") for kind in (TransformerSettings, GRU4RecSettings, SASRecSettings)]
)
def test_a_student_adds_decayed_cosines_to_its_scores(settings: StudentSettings) -> None:
    generator = torch_generator(1, "student")
    student = build_student(settings, num_items=V, history=L, item_vectors=VECTORS, generator=generator).eval()
    weight, vectors = 0.7, student.table.item_vectors
    assert vectors is not None
    before, names = student(HISTORIES).detach(), student.state_dict().keys()
    found = student.table.text_directions(SIZE + 1)
    assert found is not None
    near = found.near

    with torch.no_grad():
        student(HISTORIES)  # which folds the table: it has to be made anew
    student.table.near = near * weight**0.5

    expected = torch.zeros_like(before)
    for row, history in enumerate(HISTORIES.tolist()):
        for age, item in enumerate(reversed(history)):
            if item != V:
                for other in range(V):
                    cosine = torch.cosine_similarity(vectors[item], vectors[other], dim=0)
                    expected[row, other] += weight * 0.8**age * cosine
    with torch.no_grad():
        found = student(HISTORIES)
    torch.testing.assert_close(found - before, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight * neighbour_scores(near)(HISTORIES), expected, rtol=1e-4, atol=1e-5)
    hidden, items = student.encode(HISTORIES), torch.tensor([[5, 2], [0, 1], [13, 7]])
    assert hidden.shape == (3, student.width)
    torch.testing.assert_close(student.score_items(hidden, items), found.gather(1, items))
    torch.testing.assert_close(student.score_shared(hidden, items[0]), found[:, items[0]])
    embedded = student.embed(HISTORIES)
    torch.testing.assert_close(student.encode_rows(embedded, student.mask(HISTORIES)), hidden)
    torch.testing.assert_close(student.table.fold(), student.output_matrix()[0])
    with torch.no_grad():
        torch.testing.assert_close(student(HISTORIES), found)
        assert student.table.fold() is student.table.fold()
    assert student.state_dict().keys() == names


def test_a_student_counts_text_as_the_reference_does() -> None:
    scaled = (VECTORS - VECTORS.mean(dim=0)) / VECTORS.std(dim=0, correction=0)
    found = neighbour_scores(directions(scaled, torch.eye(SIZE)))(HISTORIES)
    reference = fit_text(TextSettings(), VECTORS.numpy(), num_items=V)
    torch.testing.assert_close(found, torch.from_numpy(reference.scores(HISTORIES.numpy())), rtol=1e-4, atol=1e-5)


def test_fewer_dimensions_keep_the_inner_products_as_well_as_can_be() -> None:
    whole = directions(VECTORS, torch.eye(SIZE))
    exact, errors = whole @ whole.T, []
    for size in range(1, SIZE + 1):
        near = directions(VECTORS, basis_of(VECTORS, size))
        assert near.shape == (V, size)
        errors.append(float((near @ near.T - exact).square().sum()))
    values = torch.linalg.svdvals(whole.double())
    expected = [float(values[size:].pow(4).sum()) for size in range(1, SIZE + 1)]
    assert errors == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_items_that_come_later_change_nothing_for_the_first() -> None:
    generator, settings = torch_generator(1, "student"), TransformerSettings(dim=8, output="tied")
    later = torch.cat([VECTORS, 7 * VECTORS[:5] + 3])
    old, new = (
        build_student(settings, num_items=len(one), history=L, item_vectors=one, generator=generator)
        for one in (VECTORS, later)
    )
    for size in (3, SIZE):
        known, grown = old.table.text_directions(size, first=V), new.table.text_directions(size, first=V)
        assert known is not None
        assert grown is not None
        torch.testing.assert_close(grown.near[:V] @ grown.near[:V].T, known.near @ known.near.T, rtol=1e-4, atol=1e-5)
    moved = new.table.text_directions(3)
    assert moved is not None
    assert not torch.allclose(moved.near[:V] @ moved.near[:V].T, known.near @ known.near.T, atol=0.05)


def test_without_text_there_are_no_directions() -> None:
    generator = torch_generator(1, "student")
    settings = TransformerSettings(dim=8, output="tied")
    student = build_student(settings, num_items=V, history=L, item_vectors=None, generator=generator)
    assert student.table.text_directions(3) is None
    assert student.width == student.dim

import pytest
import torch
from torch import Tensor

from dllm2rec.core.arrays import borrowed_offsets
from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.item_table import ItemTable
from dllm2rec.students.projection import project_rows

V, D, TEXT = 6, 3, 4


def vectors() -> Tensor:
    return torch.randn(V, TEXT, generator=torch_generator(0, "text"))


def table(**changes: object) -> ItemTable:
    built = ItemTable(**({"num_items": V, "dim": D} | changes))
    built.initialise(torch_generator(0, "table"))
    return built


def test_e_is_b_plus_w_times_the_projection_by_hand() -> None:
    built = ItemTable(
        num_items=2, dim=2, item_vectors=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), vector_scaling="none",
        text_weight=0.5, output="tied",
    )  # fmt: skip
    layer = built.projector.first
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]))
        layer.bias.copy_(torch.tensor([10.0, 20.0]))
        built.offset.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    # g(z_0) = (1 - 3 + 10, 4 + 20) = (8, 24); g(z_1) = (8, 30)
    expected = torch.tensor([[0.1 + 4.0, 0.2 + 12.0], [0.3 + 4.0, 0.4 + 15.0]])
    torch.testing.assert_close(built.fold(), expected)
    torch.testing.assert_close(
        built.input(torch.tensor([[1, 2, 0]])), torch.stack([expected[1], torch.zeros(2), expected[0]])[None]
    )
    torch.testing.assert_close(built.output_matrix()[0], expected)
    assert built.output_matrix()[1] is None


def test_without_vectors_e_is_b() -> None:
    built = table()
    assert torch.equal(built.fold(), built.offset)
    assert built.projector is None


def test_without_an_offset_e_is_the_projection() -> None:
    built = table(item_vectors=vectors(), offset=False, text_weight=2.0)
    torch.testing.assert_close(built.fold(), 2.0 * built.projector(built.item_vectors))


def test_standardised_vectors_have_no_mean_and_unit_variance_and_constant_columns_vanish() -> None:
    raw = vectors() * torch.tensor([1.0, 1000.0, 1.0, 0.0]) + torch.tensor([0.0, 0.0, 500.0, 7.0])
    scaled = table(item_vectors=raw).item_vectors
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(TEXT), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.var(dim=0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    assert torch.equal(table(item_vectors=raw, vector_scaling="none").item_vectors, raw)


def test_unit_scaling_makes_a_step_of_the_projector_as_small_as_one_of_the_offsets() -> None:
    size, rate = 400, 1e-3
    raw = 3 * torch.randn(50, size, generator=torch_generator(0, "vectors")) + 1
    moved = {}
    for scaling in ("standardise", "unit"):
        built = ItemTable(
            num_items=50, dim=64, item_vectors=raw, output="tied", vector_scaling=scaling, projector_std=0.05
        )
        built.initialise(torch_generator(0, "table"))
        before = built.fold().clone()
        assert (before - built.offset).std().item() == pytest.approx(0.05, rel=0.1)
        towards = torch.randn(50, 64, generator=torch_generator(1, "target"))
        ((built.output_matrix()[0] - towards) ** 2).sum().backward()
        torch.optim.Adam([built.projector.first.weight], lr=rate).step()
        moved[scaling] = float((built.eval().fold() - before).square().mean().sqrt())
    assert rate / 3 < moved["unit"] < 3 * rate
    assert moved["standardise"] == pytest.approx(moved["unit"] * size**0.5, rel=1e-3)


def test_unit_scaling_divides_what_is_standardised() -> None:
    raw = vectors()
    scaled, standardised = (table(item_vectors=raw, vector_scaling=one).item_vectors for one in ("unit", "standardise"))
    torch.testing.assert_close(scaled * TEXT**0.5, standardised)


def test_a_separate_output_has_its_own_weights_and_a_bias_and_a_tied_one_shares() -> None:
    separate, tied = table(item_vectors=vectors()), table(item_vectors=vectors(), output="tied")
    assert separate.output_matrix()[0] is separate.output_weight
    assert separate.output_bias is not None
    assert not separate.tied
    assert tied.tied
    assert tied.output_bias is None
    assert table(output="tied", output_bias=True).output_bias is not None
    assert table(output_bias=False).output_bias is None


def test_only_the_distinct_rows_that_are_needed_are_projected() -> None:
    built = table(item_vectors=vectors(), output="tied")
    sizes: list[int] = []
    built.projector.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    items = torch.tensor([[5, 5, 2], [2, 5, 5]])
    embedded = built.input(items)
    assert sizes == [2]
    torch.testing.assert_close(embedded, built.fold()[items])
    built.output_rows(items)
    assert sizes[-1] == 2


def test_outside_training_the_table_is_projected_once() -> None:
    built = table(item_vectors=vectors(), output="tied").eval()
    sizes: list[int] = []
    built.projector.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    with torch.no_grad():
        for _ in range(3):
            built.input(torch.tensor([1, V]))
            built.output_matrix()
            built.output_rows(torch.tensor([0]))
    assert sizes == [V]


def test_padding_gets_no_gradient() -> None:
    built = table()
    built.input(torch.tensor([V, V, 2])).sum().backward()
    assert built.offset.grad.nonzero()[:, 0].unique().tolist() == [2]


def test_text_vectors_are_no_part_of_the_state() -> None:
    assert "item_vectors" not in table(item_vectors=vectors()).state_dict()


def test_a_hidden_layer_can_be_put_into_the_projector() -> None:
    built = table(item_vectors=vectors(), projector_hidden=5)
    first, second = built.projector.first, built.projector.second
    hidden = torch.relu(built.item_vectors @ first.weight.T + first.bias)
    torch.testing.assert_close(built.fold() - built.offset, hidden @ second.weight.T + second.bias)
    assert hidden.shape == (V, 5)


@pytest.mark.parametrize("count", [1, 256, 600])
def test_projecting_rows_in_parts_has_the_value_and_gradient_of_one_product(count: int) -> None:
    matrix = torch.randn(700, TEXT, generator=torch_generator(0, "m"))
    rows = torch.randint(700, (count,), generator=torch_generator(0, "r"))
    ours = torch.randn(D, TEXT, generator=torch_generator(0, "w")).requires_grad_()
    plain = ours.detach().clone().requires_grad_()
    slope = torch.randn(count, D, generator=torch_generator(0, "s"))
    found, expected = project_rows(matrix, rows, ours), matrix[rows] @ plain.T
    torch.testing.assert_close(found, expected)
    (found * slope).sum().backward()
    (expected * slope).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-4)


def test_first_values_have_the_spread_that_was_asked_for() -> None:
    many = torch.randn(500, 64, generator=torch_generator(0, "many"))
    built = table(num_items=500, dim=64, item_vectors=many, offset_std=0.5, projector_std=0.2, output="tied")
    assert built.offset.std().item() == pytest.approx(0.5, rel=0.05)
    assert (built.fold() - built.offset).std().item() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_vectors": torch.zeros(V + 1, TEXT)}, r"must be \[6, Dt\], not \[7, 4\]"),
        ({"item_vectors": torch.zeros(V)}, "must be"),
        ({"item_vectors": torch.zeros(V, 0)}, "must be"),
        ({"item_vectors": torch.tensor([[0.0]] * 3 + [[torch.nan]] + [[0.0]] * 2)}, "finite; row 3 is not"),
        ({"offset": False}, "offset is all there is"),
        ({"num_items": 0}, "at least one item"),
    ],
)
def test_what_can_not_be_a_table_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(**changes)


def test_an_item_outside_the_catalogue_is_refused_in_the_output() -> None:
    with pytest.raises(IndexError):
        table().output_rows(torch.tensor([[V]]))


@pytest.mark.parametrize("output", ["tied", "separate"])
def test_a_shift_adds_to_the_scores_alone_and_is_no_part_of_the_state(output: str) -> None:
    built, shift = table(output=output), torch.arange(V, dtype=torch.float32)
    before, names = built.output_matrix(), built.state_dict().keys()
    looked_up = built.input(torch.tensor([2]))
    built.shift = shift
    weight, bias = built.output_matrix()
    assert bias is not None
    torch.testing.assert_close(weight, before[0])
    torch.testing.assert_close(bias, shift if before[1] is None else before[1] + shift)
    torch.testing.assert_close(built.output_rows(torch.tensor([4, 1]))[1], bias[[4, 1]])
    torch.testing.assert_close(built.input(torch.tensor([2])), looked_up)
    assert built.state_dict().keys() == names


def test_borrowed_offsets_by_a_slow_loop() -> None:
    new, known = (
        torch.randn(3, 4, generator=torch_generator(1, "n")),
        torch.randn(15, 4, generator=torch_generator(2, "k")),
    )
    offsets = torch.randn(15, 4, generator=torch_generator(3, "o"))
    found = torch.from_numpy(borrowed_offsets(new.numpy(), known=known.numpy(), offsets=offsets.numpy()))
    mean = known.mean(0)
    for row in range(3):
        cosines = [float(torch.cosine_similarity(new[row] - mean, one - mean, dim=0)) for one in known]
        nearest = sorted(range(15), key=lambda place: -cosines[place])[:10]
        weights = torch.tensor([cosines[place] / 0.1 for place in nearest]).softmax(0)
        expected = sum(weight * offsets[place] for weight, place in zip(weights, nearest, strict=True))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_only_items_that_training_never_saw_borrow() -> None:
    built = table(item_vectors=vectors(), output="tied")
    before, seen = built.offset.detach().clone(), torch.tensor([True, True, False, True, False, True])
    built.borrow_offsets(seen)
    torch.testing.assert_close(built.offset[seen], before[seen])
    assert not torch.allclose(built.offset[~seen], before[~seen])
    low, high = before[seen].min(0).values, before[seen].max(0).values
    assert ((built.offset[~seen] >= low - 1e-6) & (built.offset[~seen] <= high + 1e-6)).all()
    plain = table()
    untouched = plain.offset.detach().clone()
    plain.borrow_offsets(seen)  # without text nobody is near
    torch.testing.assert_close(plain.offset, untouched)


def test_in_a_step_of_training_some_items_are_their_text_alone() -> None:
    built = ItemTable(num_items=400, dim=D, output="tied", item_vectors=torch.randn(400, TEXT), offset_dropout=0.25)
    built.initialise(torch_generator(0, "table"))
    whole, text = built.fold(), built.projector(built.item_vectors)
    built.train().draw(torch_generator(1, "draw"))
    matrix = built.output_matrix()[0]
    bare = (matrix == text).all(dim=1)
    assert 60 < int(bare.sum()) < 140
    torch.testing.assert_close(matrix[~bare], whole[~bare])
    torch.testing.assert_close(built.input(torch.arange(400)), matrix)  # histories see them so, too
    built.draw(torch_generator(1, "draw"))
    assert torch.equal(built.output_matrix()[0], matrix)
    built.draw(torch_generator(2, "draw"))
    assert not torch.equal(built.output_matrix()[0], matrix)
    built.output_matrix()[0].sum().backward()
    assert 60 < int((built.offset.grad == 0).all(dim=1).sum()) < 140
    built.eval().draw(torch_generator(1, "draw"))
    torch.testing.assert_close(built.output_matrix()[0], whole)
    plain = table(offset_dropout=0.9).train()
    plain.draw(torch_generator(1, "draw"))
    assert torch.equal(plain.output_matrix()[0], table().train().output_matrix()[0])  # there is no text to be alone

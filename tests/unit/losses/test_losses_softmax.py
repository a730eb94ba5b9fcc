import math

import numpy as np
import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch, batches
from dllm2rec.data.examples import Past
from dllm2rec.data.windows import history_windows
from dllm2rec.losses.softmax import Candidates, SoftmaxLoss, SoftmaxSettings, softmax_cross_entropy
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.sasrec import SASRecSettings


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch_generator(0, str(shape)))


def student(output: str = "tied") -> Student:
    settings = SASRecSettings(dim=8, output=output, dropout=0.0)
    return build_student(
        settings, num_items=20, history=4, item_vectors=random(20, 5), generator=torch_generator(0, "student")
    )


def batch() -> Batch:
    history = torch.tensor([[20, 20, 1, 2], [3, 4, 5, 6], [20, 1, 4, 9]])
    return Batch(history=history, target=torch.tensor([3, 1, 3]), row=torch.arange(3))


def test_softmax_by_hand() -> None:
    hidden = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(4.0)]])
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    expected = -(math.log(1 / 4) + math.log(4 / 5)) / 2
    assert softmax_cross_entropy(hidden, weight, torch.tensor([0, 0])).item() == pytest.approx(expected)


@pytest.mark.parametrize("scores_at_once", [1, 10, 17, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_parts_agree_with_the_plain_formula_and_its_gradient(scores_at_once: int, bias: bool) -> None:
    inputs = [random(7, 3), random(5, 3), random(5) if bias else None]
    target = torch.tensor([0, 4, 2, 2, 1, 0, 3])
    found, plain = ([None if x is None else x.clone().requires_grad_() for x in inputs] for _ in range(2))
    loss = softmax_cross_entropy(found[0], found[1], target, bias=found[2], scores_at_once=scores_at_once)
    scores = plain[0] @ plain[1].T + (0 if plain[2] is None else plain[2])
    expected = torch.nn.functional.cross_entropy(scores, target)
    torch.testing.assert_close(loss, expected)
    (2 * loss).backward()
    (2 * expected).backward()
    for one, other in zip(found, plain, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_softmax_gradient() -> None:
    hidden, weight = (random(*shape, dtype=torch.float64).requires_grad_() for shape in ((4, 3), (5, 3)))
    target = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda h, w: softmax_cross_entropy(h, w, target), (hidden, weight))


def test_large_scores_do_not_overflow() -> None:
    hidden = torch.tensor([[1e4], [-1e4]])
    loss = softmax_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(1e4)


@pytest.mark.parametrize("output", ["tied", "separate"])
def test_items_that_were_not_seen_count_for_nothing_and_get_no_gradient(output: str) -> None:
    model = student(output)
    popularity = torch.zeros(20, dtype=torch.long)
    popularity[[1, 3, 4, 9]] = 2
    hidden = model.encode(batch().history)
    loss = SoftmaxLoss(popularity=popularity, candidates="seen")(model, hidden, batch(), torch_generator(0, "x"))
    scores = model.scores(hidden)[:, [1, 3, 4, 9]]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, torch.tensor([1, 0, 1])))
    loss.backward()
    rows = model.table.offset.grad if output == "tied" else model.table.output_weight.grad
    assert (rows[[0, 7, 8, 19]] == 0).all()
    assert (rows[[1, 3, 4, 9]] != 0).any(dim=1).all()


def test_all_items_compete_unless_said_otherwise() -> None:
    assert SoftmaxSettings().candidates == "all"
    model = student()
    hidden = model.encode(batch().history)
    loss = SoftmaxLoss(popularity=torch.zeros(20))(model, hidden, batch(), torch_generator(0, "x"))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model.scores(hidden), batch().target))


def test_softmax_refuses_what_it_can_not_use() -> None:
    target = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="hidden has values that are not finite"):
        softmax_cross_entropy(torch.tensor([[math.nan], [0.0]]), torch.zeros(3, 1), target)
    with pytest.raises(ValueError, match=r"hidden must be \[2, \*\]"):
        softmax_cross_entropy(torch.zeros(3, 4), torch.zeros(3, 4), target)
    with pytest.raises(ValueError, match="weight must be"):
        softmax_cross_entropy(torch.zeros(2, 4), torch.zeros(3, 5), target)
    with pytest.raises(ValueError, match="bias must be"):
        softmax_cross_entropy(torch.zeros(2, 4), torch.zeros(3, 4), target, bias=torch.zeros(2))
    with pytest.raises(ValueError, match="empty"):
        softmax_cross_entropy(torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(0, dtype=torch.long))
    unseen = SoftmaxLoss(popularity=torch.zeros(20, dtype=torch.long), candidates="seen")
    model = student()
    with pytest.raises(ValueError, match="not among the items that compete"):
        unseen(model, model.encode(batch().history), batch(), torch_generator(0, "x"))


@pytest.mark.parametrize("scores_at_once", [1, 10, 1000])
def test_excluded_rows_are_no_part_of_the_sum_but_the_target_is(scores_at_once: int) -> None:
    hidden, weight, bias = random(4, 3), random(6, 3), random(6)
    target = torch.tensor([0, 4, 2, 5])
    excluded = torch.tensor([0, 0, 0, 2, 2, 3, 3, 3]), torch.tensor([1, 1, 3, 2, 0, 4, 3, 2])  # the third its target
    found, plain = ([part.clone().requires_grad_() for part in (hidden, weight, bias)] for _ in range(2))
    loss = softmax_cross_entropy(
        found[0], found[1], target, bias=found[2], excluded=excluded, scores_at_once=scores_at_once
    )
    left_out = torch.zeros(4, 6, dtype=torch.bool)
    for row, column in ((0, 1), (0, 3), (2, 0), (3, 2), (3, 3), (3, 4)):
        left_out[row, column] = True
    scores = (plain[0] @ plain[1].T + plain[2]).masked_fill(left_out, -torch.inf)
    expected = torch.nn.functional.cross_entropy(scores, target)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("candidates", ["all", "seen"])
def test_a_softmax_that_leaves_histories_out(candidates: str) -> None:
    popularity = torch.ones(20, dtype=torch.long)
    popularity[[2, 15]] = 0
    one, some = student(), batch()
    hidden = one.encode(some.history)
    loss = SoftmaxLoss(popularity=popularity, candidates=candidates, leave_history=True)
    scores = one.scores(hidden).detach()
    if candidates == "seen":
        scores[:, popularity == 0] = -torch.inf
    for row, items in enumerate(some.history.tolist()):
        for item in items:
            if item not in (20, some.target[row]):
                scores[row, item] = -torch.inf
    expected = torch.nn.functional.cross_entropy(scores, some.target)
    torch.testing.assert_close(loss(one, hidden, some, torch_generator(0, "draws")), expected)


@pytest.mark.parametrize("leave_history", [False, True])
@pytest.mark.parametrize("scores_at_once", [1, 30, 1000])
def test_a_softmax_over_what_there_was_by_then(scores_at_once: int, leave_history: bool) -> None:
    popularity = torch.ones(20, dtype=torch.long)
    popularity[[2, 15]] = 0
    since = torch.arange(20.0).flip(0)  # the later the smaller the index
    since[[2, 15]] = torch.inf
    one = student()
    some = Batch(history=batch().history, target=batch().target, row=torch.arange(3), time=torch.tensor([5.0, 40, 16]))
    hidden = one.encode(some.history)
    loss = SoftmaxLoss(
        popularity=popularity,
        candidates="available",
        since=since,
        leave_history=leave_history,
        scores_at_once=scores_at_once,
    )
    scores = one.scores(hidden)
    absent = since > torch.tensor([[5.0], [40.0], [16.0]])
    absent[:, [2, 15]] = True
    if leave_history:
        for row, items in enumerate(some.history.tolist()):
            absent[row, [item for item in items if item != 20]] = True
    absent[torch.arange(3), some.target] = False  # the target itself always competes
    expected = torch.nn.functional.cross_entropy(scores.masked_fill(absent, -torch.inf), some.target)
    found = loss(one, hidden, some, torch_generator(0, "draws"))
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(value, one.parameters(), retain_graph=True) for value in (found, expected)]
    for mine, plain in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("scores_at_once", [1, 45, 1000])
@pytest.mark.parametrize("candidates", ["all", "seen", "available"])
def test_all_that_was_ever_chosen_is_left_out(candidates: Candidates, scores_at_once: int) -> None:
    """Users of very unequal pasts, shuffled, of which the students read four items."""
    items = np.array([2, 5, 8, 11, 2, 14, 17, 6, 3, 9, 1, 4, 7, 12, 13, 6, 0, 1, 19], np.int32)
    first, length = np.array([0, 0, 13, 15]), np.array([12, 3, 1, 3])  # three users, the first with two examples
    past = Past(items=items, target=first + length, length=length)
    source = Examples(
        example_id=np.arange(4),
        user=np.array([0, 0, 1, 2], np.int32),
        history=history_windows(items=items, position=past.target, length=length, history=4, padding=20),
        target=items[past.target],
        time=np.arange(4) * 10,
        num_items=20,
        past=past,
    )
    popularity, since = torch.ones(20, dtype=torch.long), torch.zeros(20)
    popularity[16], since[16], since[18] = 0, torch.inf, 25.0
    loss = SoftmaxLoss(
        popularity=popularity,
        candidates=candidates,
        since=since,
        leave_history="ever",
        scores_at_once=scores_at_once,
    )
    one = student()
    (some,) = batches(source, batch_size=4, generator=torch_generator(0, "order"))
    hidden = one.encode(some.history)
    scores = one.scores(hidden).detach()
    if candidates != "all":
        scores[:, 16] = -torch.inf
    if candidates == "available":
        scores[some.row < 3, 18] = -torch.inf
    for place, (row, target) in enumerate(zip(some.row.tolist(), some.target.tolist(), strict=True)):
        chosen = set(items[first[row] : first[row] + length[row]].tolist()) - {target}
        scores[place, list(chosen)] = -torch.inf
    expected = torch.nn.functional.cross_entropy(scores, some.target)
    torch.testing.assert_close(loss(one, hidden, some, torch_generator(0, "draws")), expected)


def test_what_was_available_needs_times() -> None:
    with pytest.raises(ValueError, match="since when"):
        SoftmaxLoss(popularity=torch.ones(20), candidates="available")
    loss = SoftmaxLoss(popularity=torch.ones(20), candidates="available", since=torch.zeros(20))
    one = student()
    with pytest.raises(ValueError, match="the time of an example"):
        loss(one, one.encode(batch().history), batch(), torch_generator(0, "x"))

"""Soft labels: by hand, and as the cross-entropy with a mixed label."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.data.examples import Past
from dllm2rec.distillation.lessons import take_lessons
from dllm2rec.distillation.soft_labels import SoftLabelDistiller, SoftLabelSettings, without
from dllm2rec.knowledge import Labels
from dllm2rec.losses.softmax import SoftmaxLoss
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.transformer import TransformerSettings

V = 12
HISTORY = torch.tensor([[12, 1, 2], [3, 4, 5], [12, 12, 9]])
TARGET = torch.tensor([3, 7, 0])
ITEMS = torch.tensor([[5, 3, 8], [1, 0, 2]])
DISTANCES = torch.tensor([[0.1, 0.4, 0.9], [2.0, 2.0, 2.5]])
TIME = torch.tensor([10.0, 25.0, 10.0])
ALL = SoftmaxLoss(popularity=torch.ones(V, dtype=torch.long))
DEFAULT = SoftLabelSettings()
ROWS = torch.tensor([1, -1, 0])  # the second example has no label
DRAWS = torch_generator(0, "draws")


@pytest.fixture
def student() -> Student:
    settings = TransformerSettings(dim=4, dropout=0.0, output="tied", offset_std=1.0)
    return build_student(settings, num_items=V, history=3, item_vectors=None, generator=torch_generator(0, "student"))


def batch() -> Batch:
    return Batch(history=HISTORY, target=TARGET, row=torch.arange(3))


LABELS = Labels(
    example_id=np.arange(2),
    ranked_items=ITEMS.numpy().astype(np.int32),
    distances=DISTANCES.numpy(),
    target_distance=np.zeros(2, np.float32),
    generated_text=["", ""],
)


def build(
    loss: SoftmaxLoss,
    rows: list[int],
    settings: SoftLabelSettings = DEFAULT,
    **known: Any,
) -> SoftLabelDistiller:
    count = len(rows)
    values = {
        "history": np.zeros((count, 3), np.int32),
        "target": np.zeros(count, np.int32),
        "time": np.arange(count),
    }
    training = Examples(example_id=np.arange(count), user=np.zeros(count, np.int32), num_items=V, **(values | known))
    lessons = take_lessons(LABELS, rows=np.array(rows), training=training, depth=settings.top_k)
    return SoftLabelDistiller(lessons=lessons, settings=settings, loss=loss)


def distiller(*, loss: SoftmaxLoss = ALL, **changes: Any) -> SoftLabelDistiller:
    settings = SoftLabelSettings(**({"temperature": 0.5, "weight": 0.3, "top_k": 3} | changes))
    known = {"history": HISTORY.numpy(), "target": TARGET.numpy(), "time": TIME.numpy()}
    return build(loss, ROWS.tolist(), settings, **known)


def mixed_cross_entropy(scores: np.ndarray, competes: list[int], *, weight: float, top_k: int) -> float:
    """The base loss with mixed labels, item by item."""
    total = 0.0
    for b in range(3):
        log_sum = math.log(sum(math.exp(scores[b, j]) for j in competes))
        label = dict.fromkeys(range(V), 0.0)
        taught: dict[int, float] = {}
        if ROWS[b] >= 0:
            for item, distance in zip(ITEMS[ROWS[b]].tolist()[:top_k], DISTANCES[ROWS[b]].tolist(), strict=False):
                if item in competes:
                    taught[item] = math.exp(-distance / 0.5)
        label[int(TARGET[b])] = 1 - weight if taught else 1.0
        for item, value in taught.items():
            label[item] += weight * value / sum(taught.values())
        total += sum(share * (log_sum - scores[b, j]) for j, share in label.items() if share)
    return total / 3


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("competes", [list(range(V)), [0, 3, 5, 7, 8]], ids=["all", "seen"])
def test_with_the_base_loss_it_is_the_cross_entropy_with_mixed_labels(
    student: Student, top_k: int, competes: list[int]
) -> None:
    popularity = torch.zeros(V, dtype=torch.long)
    popularity[competes] = 1
    loss = SoftmaxLoss(popularity=popularity, candidates="seen")
    hidden = student.encode(HISTORY)
    term = distiller(top_k=top_k, loss=loss)(student, hidden, batch(), DRAWS)
    found = loss(student, hidden, batch(), DRAWS) + term
    scores = student.scores(hidden).detach().numpy().astype(np.float64)
    expected = mixed_cross_entropy(scores, competes, weight=0.3, top_k=top_k)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_weight_zero_and_no_label_add_nothing(student: Student) -> None:
    hidden = student.encode(HISTORY)
    assert distiller(weight=0.0)(student, hidden, batch(), DRAWS).item() == 0.0
    only = Batch(history=HISTORY[1:2], target=TARGET[1:2], row=torch.tensor([1]))
    assert distiller()(student, hidden[1:2], only, DRAWS).item() == 0.0


def test_items_outside_the_softmax_get_no_gradient(student: Student) -> None:
    popularity = torch.ones(V, dtype=torch.long)
    popularity[8] = 0
    distiller(loss=SoftmaxLoss(popularity=popularity, candidates="seen"))(
        student, student.encode(HISTORY).detach(), batch(), DRAWS
    ).backward()
    assert (student.table.offset.grad[8] == 0).all()
    assert (student.table.offset.grad[5] != 0).any()


def test_items_of_the_history_do_not_count_against_the_teacher_where_the_softmax_leaves_them_out() -> None:
    """The first list begins with what the user just chose; behind that it is right, as the second list is."""
    known = {"history": np.array([[5], [9]], np.int32), "target": np.array([3, 0], np.int32)}
    sure = build(SoftmaxLoss(popularity=torch.ones(V), leave_history=True), [0, 1], **known)
    unsure = build(SoftmaxLoss(popularity=torch.ones(V)), [0, 1], **known)
    assert sure.shares[1, 2] < unsure.shares[1, 2] / 2


def test_nor_do_items_that_training_never_saw() -> None:
    """The first list begins with an item that does not compete; behind that it is right, as the second list is."""
    popularity = torch.ones(V)
    popularity[5] = 0
    known = {"target": np.array([3, 0], np.int32)}
    sure = build(SoftmaxLoss(popularity=popularity, candidates="seen"), [0, 1], **known)
    unsure = build(SoftmaxLoss(popularity=popularity), [0, 1], **known)
    assert sure.shares[1, 2] < unsure.shares[1, 2] / 2


def test_nor_does_what_was_chosen_long_before_where_that_is_left_out() -> None:
    """The first user chose 5, which heads the teacher's list, before the three items that are read."""
    examples = {
        "history": np.array([[6, 7, 8], [6, 7, 8]], np.int32),
        "target": np.array([3, 0], np.int32),
        "past": Past(
            items=np.array([5, 6, 7, 8, 3, 6, 7, 8, 0], np.int32), target=np.array([4, 8]), length=np.array([4, 3])
        ),
    }
    for leave_history, absent in (("ever", True), (True, False)):
        loss = SoftmaxLoss(popularity=torch.ones(V, dtype=torch.long), leave_history=leave_history)
        built = build(loss, [0, 1], DEFAULT.model_copy(update={"top_k": 3}), **examples)
        taught = (built.shares > 0).tolist()
        assert taught[0] == [not absent, True, False]  # 5, 3, which is the target, and 8, which is read
        assert all(taught[1])


def test_items_of_the_history_get_no_share_where_the_softmax_leaves_them_out(student: Student) -> None:
    # the first example's label lists 1 (of its history), 0 and 2 (of its history); the third's 5, 3 and 8
    hidden = student.encode(HISTORY)
    loss = SoftmaxLoss(popularity=torch.ones(V, dtype=torch.long), leave_history=True)
    term = distiller(loss=loss)(student, hidden, batch(), DRAWS)
    found = loss(student, hidden, batch(), DRAWS) + term
    scores = student.scores(hidden).detach()
    total = 0.0
    labels = [{3: 0.7, 0: 0.3}, {7: 1.0}, {0: 0.7}]
    shares = torch.softmax(-DISTANCES[0] / 0.5, dim=0).tolist()
    labels[2] |= {item: 0.3 * share for item, share in zip(ITEMS[0].tolist(), shares, strict=True)}
    for row, label in enumerate(labels):
        left = [item for item in range(V) if item not in HISTORY[row].tolist() or item == TARGET[row]]
        log_sum = torch.logsumexp(scores[row, left], dim=0)
        total += sum(share * float(log_sum - scores[row, item]) for item, share in label.items())
    assert found.item() == pytest.approx(total / 3, rel=1e-5)


def test_shares_of_what_is_left_keep_their_sum() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.5, 0.25, 0.25]])
    absent = torch.tensor([[False, True, False], [True, True, True], [False, True, False]])
    found = without(shares, absent)
    expected = torch.tensor([[5 / 7, 0.0, 2 / 7], [0.0, 0.0, 0.0], [2 / 3, 0.0, 1 / 3]])
    torch.testing.assert_close(found, expected)


def test_items_that_came_later_get_no_share_where_the_softmax_has_them_not(student: Student) -> None:
    # the third example's label lists 5, 3 and 8, of which 3 came after its time; the first's 1, 0 and 2 were all there
    since = torch.zeros(V, dtype=torch.float64)
    since[3], since[11] = 20.0, 30.0
    some = Batch(history=HISTORY, target=TARGET, row=torch.arange(3), time=TIME)
    loss = SoftmaxLoss(popularity=torch.ones(V, dtype=torch.long), candidates="available", since=since)
    hidden = student.encode(HISTORY)
    found = loss(student, hidden, some, DRAWS) + distiller(loss=loss)(student, hidden, some, DRAWS)
    scores = student.scores(hidden).detach()
    shares = torch.softmax(-DISTANCES / 0.5, dim=1).tolist()
    left = shares[0][0] + shares[0][2]
    labels = [
        {3: 0.7, **{item: 0.3 * share for item, share in zip(ITEMS[1].tolist(), shares[1], strict=True)}},
        {7: 1.0},
        {0: 0.7, 5: 0.3 * shares[0][0] / left, 8: 0.3 * shares[0][2] / left},
    ]
    expected = 0.0
    for row, label in enumerate(labels):
        there = [item for item in range(V) if since[item] <= some.time[row] or item == TARGET[row]]  # type: ignore[index]
        log_sum = torch.logsumexp(scores[row, there], dim=0).item()
        expected += sum(share * (log_sum - scores[row, item].item()) for item, share in label.items()) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_items_that_came_later_do_not_count_against_the_teacher() -> None:
    since = torch.zeros(V, dtype=torch.float64)
    since[5] = 5.0  # first in the first list; behind it comes the target
    known = {"target": np.array([3, 1], np.int32)}
    then = SoftmaxLoss(popularity=torch.ones(V), candidates="available", since=since)
    assert (
        build(then, [0, 1], **known).shares[1, 0]
        > build(SoftmaxLoss(popularity=torch.ones(V)), [0, 1], **known).shares[1, 0]
    )

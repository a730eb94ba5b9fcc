import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.caser import CaserSettings
from dllm2rec.students.factory import build_student
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.item_table import ItemTable
from dllm2rec.students.sasrec import SASRecSettings

V = 9
STUDENTS = [
    build_student(
        kind(dim=8, output="tied"), num_items=V, history=4, item_vectors=torch.eye(V), generator=torch_generator(0, "x")
    ).eval()
    for kind in (SASRecSettings, GRU4RecSettings, CaserSettings)
]


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.integers(0, V - 1), max_size=7),
    padding=st.integers(0, 6),
    which=st.integers(0, 2),
)
def test_what_stands_before_the_newest_items_changes_nothing(items: list[int], padding: int, which: int) -> None:
    student = STUDENTS[which]
    short = torch.tensor([([V] * 4 + items)[-4:]])
    long = torch.tensor([[V] * padding + items]) if items or padding else short
    torch.testing.assert_close(student(long), student(short))


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.lists(st.integers(0, V), min_size=3, max_size=3), min_size=1, max_size=5),
    offset=st.booleans(),
    weight=st.floats(0.1, 2.0),
)
def test_projecting_distinct_rows_equals_looking_up_in_the_folded_table(
    items: list[list[int]], offset: bool, weight: float
) -> None:
    table = ItemTable(num_items=V, dim=2, item_vectors=torch.eye(V), offset=offset, text_weight=weight)
    table.initialise(torch_generator(0, "table"))
    folded = torch.cat([table.fold(), torch.zeros(1, 2)])
    torch.testing.assert_close(table.input(torch.tensor(items)), folded[torch.tensor(items)])

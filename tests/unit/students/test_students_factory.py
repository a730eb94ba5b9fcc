import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.caser import Caser, CaserSettings
from dllm2rec.students.factory import StudentSettings, build_student
from dllm2rec.students.gru4rec import GRU4Rec, GRU4RecSettings
from dllm2rec.students.initialise import initialise
from dllm2rec.students.sasrec import SASRec, SASRecSettings


@pytest.mark.parametrize(
    ("kind", "settings", "student"),
    [("sasrec", SASRecSettings, SASRec), ("gru4rec", GRU4RecSettings, GRU4Rec), ("caser", CaserSettings, Caser)],
)
def test_the_kind_chooses_the_student(kind: str, settings: type, student: type) -> None:
    read: StudentSettings = TypeAdapter(StudentSettings).validate_python({"kind": kind, "dim": 8, "text_weight": 0.3})
    assert isinstance(read, settings)
    built = build_student(
        read, num_items=9, history=4, item_vectors=torch.randn(9, 3), generator=torch_generator(0, "x")
    )
    assert isinstance(built, student)
    assert (built.dim, built.num_items, built.history, built.table.text_weight) == (8, 9, 4, 0.3)


def test_the_paper_s_sizes_are_the_defaults() -> None:
    settings = SASRecSettings()
    assert (settings.dim, settings.dropout, settings.blocks, settings.output) == (64, 0.1, 1, "separate")


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"blocks": 0}, {"heads": 2}, {"output": "x"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SASRecSettings(**wrong)


def test_without_item_vectors_the_offset_stays() -> None:
    built = build_student(
        SASRecSettings(offset=False), num_items=9, history=4, item_vectors=None, generator=torch_generator(0, "x")
    )
    assert built.table.offset is not None


def test_a_history_of_no_items_and_filters_of_no_height_are_refused() -> None:
    with pytest.raises(ValueError, match="history must be at least 1"):
        build_student(SASRecSettings(), num_items=9, history=0, item_vectors=None, generator=torch_generator(0, "x"))
    with pytest.raises(ValueError, match="at least one height"):
        Caser(table=CaserSettings().table(num_items=9, item_vectors=None), history=4, heights=())
    for heights in ((), (0,), (2, -1)):
        with pytest.raises(ValidationError, match="heights"):
            CaserSettings(heights=heights)


def test_filters_higher_than_the_history_are_cut_to_it() -> None:
    built = build_student(
        CaserSettings(heights=(2, 50, 10**9)),
        num_items=9,
        history=4,
        item_vectors=None,
        generator=torch_generator(0, "x"),
    )
    assert isinstance(built, Caser)
    assert [filters.kernel_size[0] for filters in built.horizontal] == [2, 4]
    assert built(torch.tensor([[9, 9, 9, 3]])).shape == (1, 9)


def test_a_layer_without_a_rule_for_its_first_weights_is_refused() -> None:
    with pytest.raises(TypeError, match="BatchNorm1d"):
        initialise(torch.nn.BatchNorm1d(2), torch_generator(0, "x"))

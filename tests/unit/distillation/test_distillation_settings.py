import pytest
from pydantic import ValidationError

from dllm2rec.distillation.settings import DLLM2RecSettings, adapt_loss, adapt_student, decide
from dllm2rec.losses.bce import BCESettings
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.losses.softmax import SoftmaxSettings
from dllm2rec.students.gru4rec import GRU4RecSettings

PAPER = {
    "confidence": "sequence",
    "sampled_negative_term": False,
    "dros_on_candidates": False,
    "base_reduction": "sum",
    "renormalise": False,
    "sides": "both",
}
RELEASED = {
    "confidence": "item",
    "sampled_negative_term": True,
    "dros_on_candidates": True,
    "base_reduction": "mean",
    "renormalise": True,
    "sides": "input",
}


def test_a_variant_decides_what_is_left_open() -> None:
    assert decide(DLLM2RecSettings(variant="paper")).model_dump() == PAPER
    assert decide(DLLM2RecSettings(variant="released")).model_dump() == RELEASED


@pytest.mark.parametrize("name", PAPER)
def test_each_difference_can_be_named(name: str) -> None:
    mixed = decide(DLLM2RecSettings(variant="paper", **{name: RELEASED[name]}))
    assert mixed.model_dump() == PAPER | {name: RELEASED[name]}
    mixed = decide(DLLM2RecSettings(variant="released", **{name: PAPER[name]}))
    assert mixed.model_dump() == RELEASED | {name: PAPER[name]}


def test_the_paper_s_numbers_are_the_defaults() -> None:
    s = DLLM2RecSettings()
    assert (s.variant, s.top_k, s.beta) == ("paper", 10, 1.0)
    assert (s.gamma_position, s.gamma_confidence, s.gamma_consistency) == (0.3, 0.5, 0.1)


@pytest.mark.parametrize(
    "wrong", [{"variant": "papers"}, {"lambda_d": -1}, {"beta": 0}, {"top_k": 0}, {"gamma": 1}, {"gamma_position": -1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DLLM2RecSettings(**wrong)


def test_the_method_ties_or_separates_the_output() -> None:
    plain = GRU4RecSettings()
    assert adapt_student(plain, DLLM2RecSettings(variant="paper")).output == "tied"
    assert adapt_student(plain, DLLM2RecSettings(variant="released")).output == "separate"
    assert adapt_student(plain, DLLM2RecSettings(variant="released", sides="both")).output == "tied"
    assert adapt_student(plain, DLLM2RecSettings(embedding=False, sides="both")) == plain
    for instead in ("hint", "htd"):  # the output layer is the same in all rows of table 9 that distil vectors
        hinted = adapt_student(plain, DLLM2RecSettings(embedding=instead))
        assert (hinted.output, hinted.offset) == ("tied", True)


def test_the_projection_alone_leaves_the_offset_out() -> None:
    assert adapt_student(GRU4RecSettings(), DLLM2RecSettings(embedding="projection")).offset is False
    assert adapt_student(GRU4RecSettings(), DLLM2RecSettings()).offset is True


def test_an_output_that_was_named_stays_unless_the_method_names_sides() -> None:
    named = GRU4RecSettings(output="separate")
    assert adapt_student(named, DLLM2RecSettings(variant="paper")).output == "separate"
    assert adapt_student(named, DLLM2RecSettings(variant="paper", sides="both")).output == "tied"


def test_the_method_sets_the_reduction_of_the_base_loss() -> None:
    released, paper = DLLM2RecSettings(variant="released"), DLLM2RecSettings(variant="paper")
    for loss in (BCESettings(), DROSSettings()):
        assert adapt_loss(loss, released).reduction == "mean"
        assert adapt_loss(loss, paper).reduction == "sum"
    assert adapt_loss(BCESettings(reduction="sum"), released).reduction == "sum"
    assert adapt_loss(BCESettings(reduction="sum"), DLLM2RecSettings(base_reduction="mean")).reduction == "mean"
    assert adapt_loss(SoftmaxSettings(), released) == SoftmaxSettings()

"""Settings of DLLM2Rec, and what its two variants say where a setting is left open."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dllm2rec.core.settings import Settings
from dllm2rec.distillation.distances import Normalisation
from dllm2rec.losses.bce import BCESettings, Reduction
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.losses.factory import LossSettings
from dllm2rec.students.factory import StudentSettings

Confidence = Literal["sequence", "item"]
Sides = Literal["input", "both"]
Gamma = Annotated[float, Field(ge=0)]


class DLLM2RecSettings(Settings):
    """DLLM2Rec (Cui et al. 2024). None means: what the variant says.

    Attributes:
        variant: `paper` follows the equations, `released` the authors' code.
        lambda_d: weight of the ranking distillation (eq. 11); 0 leaves it out.
        top_k: K, how many of the teacher's items are distilled; shorter lists are refused, the weights are of K.
        beta: temperature of the position weights (eq. 6).
        gamma_position, gamma_confidence, gamma_consistency: shares of the three weights (eq. 10).
        distance_normalisation: `robust` centres distances and divides them by their spread, so that confidence weights
            differ; `none` leaves them.
        confidence: one weight a `sequence` from the distance of its target (paper), or one an `item` of the list from
            that item's distance, normalised over the list (released).
        sampled_negative_term: add ``-log sigma(1 - y_neg)`` to the loss of each candidate, for one sampled negative
            that the candidates of an example share (released).
        dros_on_candidates: where the base loss is DROS, add its robust term for each candidate too (released).
        base_reduction: how the base loss joins positive and negatives: `sum` (paper) or `mean` (released).
        renormalise: make the combined weights of a list sum to 1 (released).
        embedding: distil the item vectors into the item table (eqs. 12, 13); `projection` leaves its offset out, `hint`
            or `htd` distils them by that method, with its defaults, instead (table 9); False distils none.
        sides: item vectors act on the `input` only, with a separate output layer (released), or on `both` sides, the
            output tied to the input (paper).
    """

    kind: Literal["dllm2rec"] = "dllm2rec"
    variant: Literal["paper", "released"] = "paper"
    lambda_d: Gamma = 0.7
    top_k: PositiveInt = 10
    beta: PositiveFloat = 1.0
    gamma_position: Gamma = 0.3
    gamma_confidence: Gamma = 0.5
    gamma_consistency: Gamma = 0.1
    distance_normalisation: Normalisation = "robust"
    confidence: Confidence | None = None
    sampled_negative_term: bool | None = None
    dros_on_candidates: bool | None = None
    base_reduction: Reduction | None = None
    renormalise: bool | None = None
    embedding: bool | Literal["projection", "hint", "htd"] = True
    sides: Sides | None = None


class Differences(Settings):
    """Every difference between the paper and the authors' code, decided; for the fields see `DLLM2RecSettings`."""

    confidence: Confidence
    sampled_negative_term: bool
    dros_on_candidates: bool
    base_reduction: Reduction
    renormalise: bool
    sides: Sides


PAPER = Differences(
    confidence="sequence",
    sampled_negative_term=False,
    dros_on_candidates=False,
    base_reduction="sum",
    renormalise=False,
    sides="both",
)
RELEASED = Differences(
    confidence="item",
    sampled_negative_term=True,
    dros_on_candidates=True,
    base_reduction="mean",
    renormalise=True,
    sides="input",
)


def decide(settings: DLLM2RecSettings) -> Differences:
    """Fill what the settings leave open with what the variant says."""
    variant = PAPER if settings.variant == "paper" else RELEASED
    named = {name: getattr(settings, name) for name in Differences.model_fields}
    return variant.model_copy(update={name: value for name, value in named.items() if value is not None})


def adapt_student(student: StudentSettings, settings: DLLM2RecSettings) -> StudentSettings:
    """Tie or separate the output of a student, and leave its offset out, as the method says.

    Where `sides` is open and the student's `output` was set by name, the student keeps it. Without item vectors
    nothing changes.
    """
    if settings.embedding is False:
        return student
    changes: dict[str, object] = {"offset": False} if settings.embedding == "projection" else {}
    if settings.sides is not None or "output" not in student.model_fields_set:
        changes["output"] = "tied" if decide(settings).sides == "both" else "separate"
    return student.model_copy(update=changes)


def reads_vectors(settings: DLLM2RecSettings) -> bool:
    """Whether the student's item table is built on the teacher's item vectors."""
    return settings.embedding is True or settings.embedding == "projection"


def adapt_loss(loss: LossSettings, settings: DLLM2RecSettings) -> LossSettings:
    """Give the base loss the reduction that the method says.

    Where `base_reduction` is open and the loss's `reduction` was set by name, the loss keeps it. To be compared with
    its plain self, a student must be trained with the same adapted loss there.
    """
    match loss:
        case BCESettings() | DROSSettings():
            if settings.base_reduction is None and "reduction" in loss.model_fields_set:
                return loss
            return loss.model_copy(update={"reduction": decide(settings).base_reduction})
        case _:
            return loss

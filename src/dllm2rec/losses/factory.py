"""From settings to a loss."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from dllm2rec.losses.base import Loss
from dllm2rec.losses.bce import BCELoss, BCESettings
from dllm2rec.losses.dros import DROSLoss, DROSSettings, RobustTerm
from dllm2rec.losses.gbce import GBCELoss, GBCESettings
from dllm2rec.losses.sampled_softmax import SampledSoftmaxLoss, SampledSoftmaxSettings
from dllm2rec.losses.softmax import SoftmaxLoss, SoftmaxSettings

LossSettings = Annotated[
    BCESettings | SoftmaxSettings | SampledSoftmaxSettings | GBCESettings | DROSSettings, Field(discriminator="kind")
]


def build_loss(settings: LossSettings, *, popularity: Tensor, since: Tensor | None = None) -> Loss:
    """Build a loss.

    Args:
        settings: which loss, and how.
        popularity: `[V]`, how often each item occurs in training.
        since: `[V]`, when training first has each item; only a softmax over available items needs it.

    Raises:
        ValueError: more negatives are asked for than there are items to draw.
    """
    match settings:
        case BCESettings():
            return BCELoss(negatives=settings.negatives, reduction=settings.reduction)
        case SoftmaxSettings():
            return SoftmaxLoss(
                popularity=popularity,
                candidates=settings.candidates,
                leave_history=settings.leave_history or False,
                scores_at_once=settings.scores_at_once,
                since=since,
            )
        case SampledSoftmaxSettings():
            return SampledSoftmaxLoss(
                popularity=popularity,
                negatives=settings.negatives,
                power=settings.power,
                since=since if settings.candidates == "available" else None,
            )
        case GBCESettings():
            return GBCELoss(num_items=len(popularity), negatives=settings.negatives, calibration=settings.calibration)
        case DROSSettings():
            return DROSLoss(
                robust=RobustTerm(popularity=popularity, beta=settings.beta),
                alpha=settings.alpha,
                negatives=settings.negatives,
                reduction=settings.reduction,
            )

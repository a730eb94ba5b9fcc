"""Generalised binary cross-entropy: sampled negatives without over-confidence (Petrov and Macdonald 2023, gSASRec)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores
from dllm2rec.losses.negatives import score_with_negatives


class GBCESettings(Settings):
    """Generalised binary cross-entropy.

    Attributes:
        negatives: how many sampled items for each target.
        calibration: t; 0 is plain binary cross-entropy, 1 makes the scores' order that of the full softmax.
    """

    kind: Literal["gbce"] = "gbce"
    negatives: PositiveInt = 128
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75


class GBCELoss:
    """Scores the target and its sampled negatives by gather; see `generalised_bce`.

    Args:
        num_items: V.
        negatives: see `GBCESettings`.
        calibration: see `GBCESettings`.

    Raises:
        ValueError: more negatives than other items.
    """

    def __init__(self, *, num_items: int, negatives: int, calibration: float) -> None:
        if negatives > num_items - 1:
            raise ValueError(f"loss.negatives is {negatives}, but there are only {num_items - 1} other items")
        rate = negatives / (num_items - 1)
        self.negatives = negatives
        self.beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        scores = score_with_negatives(scorer, hidden, batch, count=self.negatives, generator=generator)
        return generalised_bce(scores[:, 0], scores[:, 1:], beta=self.beta)


def generalised_bce(positive: Tensor, negatives: Tensor, *, beta: float) -> Tensor:
    """``-(beta log sigma(y_pos) + sum_j log(1 - sigma(y_j))) / (1 + N)``, averaged over the examples.

    Petrov and Macdonald 2023, eqs. 15 and 20: with the sampling rate ``a = N / (V - 1)`` and the calibration t,
    ``beta = a (t (1 - 1/a) + 1/a)``.

    Args:
        positive: `[B]`, the targets' scores.
        negatives: `[B, N]`, the scores of their negatives.
        beta: weight of the positive term.

    Raises:
        ValueError: empty, misshapen or non-finite scores.
    """
    require_scores("positive", positive, (None,))
    require_scores("negatives", negatives, (len(positive), None))
    terms = beta * F.softplus(-positive) + F.softplus(negatives).sum(dim=1)
    return terms.mean() / (1 + negatives.shape[1])

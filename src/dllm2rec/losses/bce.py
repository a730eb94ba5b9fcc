"""Binary cross-entropy with sampled negatives (Cui et al. 2024, eq. 3)."""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.settings import Settings
from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores
from dllm2rec.losses.negatives import score_with_negatives

Reduction = Literal["sum", "mean"]


class BCESettings(Settings):
    """Binary cross-entropy.

    Attributes:
        negatives: how many sampled items for each target.
        reduction: `sum` adds the terms of an example, as eq. 3 does; `mean` averages them, as the authors' code does,
            which with one negative halves the loss (and so doubles what ``lambda_d`` means).
    """

    kind: Literal["bce"] = "bce"
    negatives: PositiveInt = 1
    reduction: Reduction = "sum"


class BCELoss:
    """Scores the target and its sampled negatives by gather and compares them; see `binary_cross_entropy`.

    Args:
        negatives: how many sampled items for each target.
        reduction: see `BCESettings`.
    """

    def __init__(self, *, negatives: int = 1, reduction: Reduction = "sum") -> None:
        self.negatives = negatives
        self.reduction: Reduction = reduction

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        scores = score_with_negatives(scorer, hidden, batch, count=self.negatives, generator=generator)
        return binary_cross_entropy(scores[:, 0], scores[:, 1:], reduction=self.reduction)


def binary_cross_entropy(positive: Tensor, negatives: Tensor, *, reduction: Reduction = "sum") -> Tensor:
    """``-log sigma(y_pos) - sum_j log(1 - sigma(y_j))``, averaged over the examples (Cui et al. 2024, eq. 3).

    Args:
        positive: `[B]`, the targets' scores.
        negatives: `[B, N]`, the scores of their negatives.
        reduction: within an example, `sum` as in the paper or `mean` over its 1 + N terms as in the authors' code.

    Raises:
        ValueError: empty, misshapen or non-finite scores.
    """
    require_scores("positive", positive, (None,))
    require_scores("negatives", negatives, (len(positive), None))
    terms = F.softplus(torch.cat([-positive.unsqueeze(1), negatives], dim=1))
    return terms.sum(dim=1).mean() if reduction == "sum" else terms.mean()

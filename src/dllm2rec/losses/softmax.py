"""Cross-entropy over a softmax of the whole catalogue."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.data.batches import Batch
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores

Candidates = Literal["all", "seen"]


class SoftmaxSettings(BaseModel):
    """Full softmax.

    Attributes:
        candidates: `all` items compete with the target, or only those `seen` in training. With a tied output over text
            vectors `seen` is what lets items without interactions be recommended: training never pushes them down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["softmax"] = "softmax"
    candidates: Candidates = "all"


class SoftmaxLoss:
    """``-log softmax(scores)[target]``, averaged over the batch.

    Args:
        popularity: `[V]`, how often each item occurs in training; only used for `seen`.
        candidates: see `SoftmaxSettings`.
    """

    def __init__(self, *, popularity: Tensor, candidates: Candidates = "all") -> None:
        self.competes = None if candidates == "all" else popularity > 0

    def __call__(
        self,
        scorer: Scorer,
        hidden: Tensor,
        batch: Batch,
        generator: torch.Generator,  # noqa: ARG002 - the protocol has it, nothing is drawn
    ) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        return softmax_cross_entropy(scorer.scores(hidden), batch.target, competes=self.competes)


def softmax_cross_entropy(scores: Tensor, target: Tensor, *, competes: Tensor | None = None) -> Tensor:
    """``mean_b ( log sum_j exp(s_bj) - s_b,target )``.

    Args:
        scores: `[B, V]`.
        target: `[B]`.
        competes: bool `[V]`, which items the sum is over; None means all. The targets must be among them.

    Raises:
        ValueError: empty, misshapen or non-finite scores, or a target that does not compete.
    """
    require_scores("scores", scores, (len(target), None))
    if competes is None:
        return F.cross_entropy(scores, target)
    if competes.shape != scores.shape[1:]:
        raise ValueError(f"competes must be [{scores.shape[1]}], not {list(competes.shape)}")
    if not bool(competes[target].all()):
        raise ValueError("a target is not among the items that compete")
    return F.cross_entropy(scores.masked_fill(~competes, -torch.inf), target)

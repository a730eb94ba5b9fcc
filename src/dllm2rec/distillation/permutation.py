"""The relaxed permutation likelihood that RRD and DCD share (Kang et al., CIKM 2020, DE-RRD)."""

import torch
from torch import Tensor

from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores

NO_ITEM = -1
_NOTHING = -1e30  # a score that adds nothing to a sum of exponentials, and stays finite in its gradient


def permutation_losses(
    interesting: Tensor, uninteresting: Tensor, *, kept: Tensor | None = None, below: Tensor | None = None
) -> Tensor:
    """Negative logarithm of the likelihood that the interesting items come in their order, before all others.

    ``- sum_k [ s_k - log( sum_{j >= k} exp s_j + sum_{l in U} exp s_l ) ]``: Plackett-Luce for the interesting items,
    while the order among the uninteresting ones is left open.

    Args:
        interesting: `[B, K]` scores, best first by the teacher.
        uninteresting: `[B, U]` scores; U may be 0.
        kept: `[B, K]` bool, False where there is no item; None: all are there.
        below: `[B, U]` bool, the same for the uninteresting ones.

    Returns:
        `[B]`; 0 where no interesting item is there.

    Raises:
        NotFiniteError: a score is NaN or infinite.
        ValueError: the shapes do not fit.
    """
    require_scores("interesting", interesting, (None, None))
    if uninteresting.shape[1]:
        require_scores("uninteresting", uninteresting, (len(interesting), None))
    kept = torch.ones_like(interesting, dtype=torch.bool) if kept is None else kept
    top = interesting.masked_fill(~kept, _NOTHING)
    rest = uninteresting if below is None else uninteresting.masked_fill(~below, _NOTHING)
    floor = torch.cat([rest, top.new_full((len(top), 1), _NOTHING)], dim=1).logsumexp(dim=1, keepdim=True)
    tails = torch.cat([floor, top.flip(1)], dim=1).logcumsumexp(dim=1)[:, 1:].flip(1)
    return (tails - top).masked_fill(~kept, 0.0).sum(dim=1)


def score_permutations(scorer: Scorer, hidden: Tensor, interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """Return `permutation_losses` of items `[B, K]` and `[B, U]`, `[B]`; where an item is `NO_ITEM` there is none."""
    items = torch.cat([interesting, uninteresting], dim=1)
    scores = scorer.score_items(hidden, items.clamp(min=0))
    there, size = items != NO_ITEM, interesting.shape[1]
    return permutation_losses(scores[:, :size], scores[:, size:], kept=there[:, :size], below=there[:, size:])

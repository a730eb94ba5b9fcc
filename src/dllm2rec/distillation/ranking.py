"""Importance-aware ranking distillation (Cui et al. 2024, eqs. 5 and 11)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.distillation.distances import normalise_distances, normalise_listed_distances
from dllm2rec.distillation.lessons import Lessons, ListDistiller, Step
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.distillation.weights import (
    combine,
    consistency_weights,
    item_confidence,
    position_weights,
    sequence_confidence,
)
from dllm2rec.losses.base import Loss, Scorer
from dllm2rec.losses.dros import DROSLoss
from dllm2rec.losses.negatives import uniform_negatives

SCORES_AT_ONCE = 1 << 25
"""Most scores of a step in memory, if one example has no more."""


class RankingDistiller(ListDistiller):
    """``lambda_d / B sum_s sum_i w_si l(s, i)`` over a batch's labelled examples s and the teacher's top K items i.

    ``l`` is ``-log sigma(y_si)``, plus what the variant adds; for the weights see `combine`. That an example without a
    label adds nothing, and a labelled one the same however many others are labelled, is eq. 11 with partial coverage.

    "The student's current top K" of the consistency is computed in each step, from the scores of the whole catalogue
    with the step's dropout, as in the authors' code.

    Args:
        lessons: lists of `top_k` items.
        settings: which weights and which loss.
        loss: the base loss, whose robust term each candidate may get too.
    """

    def __init__(self, *, lessons: Lessons, settings: DLLM2RecSettings, loss: Loss) -> None:
        super().__init__(lessons=lessons, weight=settings.lambda_d)
        self.settings = settings
        self.differences = decide(settings)
        robust = self.differences.dros_on_candidates
        self.robust = loss if robust and isinstance(loss, DROSLoss) and loss.alpha > 0.0 else None
        self.whole_batches = self.robust is not None  # they share the scores of the base loss
        self.position = position_weights(torch.arange(1, settings.top_k + 1), beta=settings.beta)
        self.confidence = self._confidence()

    def losses(self, scorer: Scorer, hidden: Tensor, step: Step) -> Tensor:
        """Return the weighted loss of each candidate, `[n, K]`."""
        candidates = self.lessons.ranked_items[step.place.clamp(min=0)].long().to(hidden.device)
        losses = self._losses(scorer, hidden, candidates, step)
        return self._weights(step.place, candidates, self._consistency(scorer, hidden, candidates)) * losses

    def _consistency(self, scorer: Scorer, hidden: Tensor, candidates: Tensor) -> Tensor | None:
        """Return the consistency of each candidate, `[N, K]`, without gradient, if it counts."""
        if self.settings.gamma_consistency == 0.0:
            return None
        rows = max(1, SCORES_AT_ONCE // scorer.num_items)
        with torch.no_grad():
            if len(hidden) <= rows:  # these scores may be the base loss's, too
                return consistency_weights(scorer.scores(hidden).detach(), candidates)
            weight, bias = scorer.output_matrix()
            found = []
            for part, listed in zip(torch.split(hidden, rows), torch.split(candidates, rows), strict=True):
                scores = part @ weight.T if bias is None else torch.addmm(bias, part, weight.T)
                found.append(consistency_weights(scores, listed))
            return torch.cat(found)

    def _losses(self, scorer: Scorer, hidden: Tensor, candidates: Tensor, step: Step) -> Tensor:
        """Return the loss of each candidate, `[N, K]`."""
        items = candidates
        if self.differences.sampled_negative_term:
            negative = uniform_negatives(step.target, num_items=scorer.num_items, count=1, generator=step.generator)
            items = torch.cat([candidates, negative], dim=1)
        scores = scorer.score_items(hidden, items)
        chosen = scores[:, : self.settings.top_k]
        losses = F.softplus(-chosen)
        if self.differences.sampled_negative_term:
            losses = losses + F.softplus(scores[:, self.settings.top_k :] - 1)
        if self.robust is not None:
            losses = losses + self.robust.alpha * self.robust.robust(scorer, hidden, candidates, chosen)
        return losses

    def _weights(self, place: Tensor, candidates: Tensor, consistency: Tensor | None) -> Tensor:
        """Return the weight of each candidate, `[N, K]`; 0 where the place is -1."""
        weights = combine(
            position=self.position.to(candidates.device),
            confidence=self.confidence[place].to(candidates.device),
            consistency=consistency,
            gamma_position=self.settings.gamma_position,
            gamma_confidence=self.settings.gamma_confidence,
            gamma_consistency=self.settings.gamma_consistency,
            renormalise=self.differences.renormalise,
        )
        return weights * (place >= 0).unsqueeze(1).to(candidates.device)

    def _confidence(self) -> Tensor:
        """Return the confidence of the labels, `[P, 1]` or `[P, K]`."""
        how = self.settings.distance_normalisation
        if self.differences.confidence == "item":
            return item_confidence(normalise_listed_distances(self.lessons.distances, normalisation=how))
        normalised = normalise_distances(self.lessons.target_distance, normalisation=how)
        return sequence_confidence(normalised, size=self.settings.top_k).unsqueeze(1)

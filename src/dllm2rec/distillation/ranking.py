"""Importance-aware ranking distillation (Cui et al. 2024, eqs. 5 and 11)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Encoder
from dllm2rec.distillation.distances import normalise_distances, normalise_listed_distances
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.distillation.weights import (
    combine,
    consistency_weights,
    item_confidence,
    position_weights,
    sequence_confidence,
)
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.checks import require_scores
from dllm2rec.losses.dros import DROSLoss
from dllm2rec.losses.negatives import uniform_negatives


class RankingDistiller:
    """``lambda_d / B sum_s sum_i w_si l(s, i)`` over a batch's labelled examples s and the teacher's top K items i.

    ``l`` is ``-log sigma(y_si)``, plus what the variant adds; for the weights see `combine`. The sum over s is divided
    by the size of the whole batch: it is the mean over the labelled examples times their share. An example without a
    label adds nothing, and a labelled one counts the same beside its own recommendation loss (a mean over the batch)
    however many others are labelled, which is eq. 11 with partial coverage.

    "The student's current top K" of the consistency is computed in each step, from the scores of the whole catalogue
    with the step's dropout, as in the authors' code.

    Args:
        ranked_items: `[N, K or more]` int64, the teacher's lists, best first, distinct items within a list.
        distances: `[N, K or more]`, of the listed items.
        target_distance: `[N]`, of the true next items.
        label_row: for each training example its row among the N, or -1.
        settings: which weights and which loss.
        robust: the base loss, whose robust term each candidate gets too, or None.

    Raises:
        ValueError: shapes that do not fit, lists shorter than `top_k`, an item twice in a list, or distances that are
            not finite.
    """

    def __init__(
        self,
        *,
        ranked_items: Tensor,
        distances: Tensor,
        target_distance: Tensor,
        label_row: Tensor,
        settings: DLLM2RecSettings,
        robust: DROSLoss | None = None,
    ) -> None:
        _check(ranked_items, distances, target_distance, label_row, settings.top_k)
        used = torch.unique(label_row[label_row >= 0])
        self.settings = settings
        self.differences = decide(settings)
        self.robust = robust if robust is not None and robust.alpha > 0.0 else None
        self.candidates = ranked_items[:, : settings.top_k].to(torch.long)
        self.label_row = label_row
        self.position = position_weights(torch.arange(1, settings.top_k + 1), beta=settings.beta)
        self.confidence = torch.zeros(
            len(ranked_items), 1 if self.differences.confidence == "sequence" else settings.top_k
        )
        if len(used):
            self.confidence[used] = self._confidence(distances[used, : settings.top_k], target_distance[used])

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        """Nothing is prepared."""

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return ``lambda_d`` times the distillation loss of a batch; see `Distiller`."""
        row = self.label_row[batch.row.cpu()]
        if self.settings.lambda_d == 0.0 or not bool((row >= 0).any()):
            return hidden.new_zeros(())
        size = len(hidden)
        if self.robust is None:  # with it the whole batch goes on: it shares the scores of the base loss
            labelled = (row >= 0).nonzero().squeeze(1)
            row, hidden, target = row[labelled], hidden[labelled], batch.target[labelled]
        else:
            target = batch.target
        candidates = self.candidates[row.clamp(min=0)].to(hidden.device)
        losses = self._losses(scorer, hidden, candidates, target, generator)
        weights = self._weights(row, candidates, self._full_scores(scorer, hidden))
        return self.settings.lambda_d * (weights * losses).sum() / size

    def _full_scores(self, scorer: Scorer, hidden: Tensor) -> Tensor | None:
        """Return the scores of the whole catalogue, `[N, V]`, without gradient, if the weights need them."""
        if self.settings.gamma_consistency == 0.0:
            return None
        with torch.no_grad():
            return scorer.scores(hidden).detach()

    def _losses(
        self, scorer: Scorer, hidden: Tensor, candidates: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each candidate, `[N, K]`."""
        items = candidates
        if self.differences.sampled_negative_term:
            negative = uniform_negatives(target, num_items=scorer.num_items, count=1, generator=generator)
            items = torch.cat([candidates, negative], dim=1)
        scores = scorer.score_items(hidden, items)
        chosen = scores[:, : self.settings.top_k]
        losses = F.softplus(-chosen)
        if self.differences.sampled_negative_term:
            losses = losses + F.softplus(scores[:, self.settings.top_k :] - 1)
        if self.robust is not None:
            losses = losses + self.robust.alpha * self.robust.robust(scorer, hidden, candidates, chosen)
        return losses

    def _weights(self, row: Tensor, candidates: Tensor, full: Tensor | None) -> Tensor:
        """Return the weight of each candidate, `[N, K]`; 0 where the label row is -1."""
        weights = combine(
            position=self.position.to(candidates.device),
            confidence=self.confidence[row].to(candidates.device),
            consistency=None if full is None else consistency_weights(full, candidates),
            gamma_position=self.settings.gamma_position,
            gamma_confidence=self.settings.gamma_confidence,
            gamma_consistency=self.settings.gamma_consistency,
            renormalise=self.differences.renormalise,
        )
        return weights * (row >= 0).unsqueeze(1).to(candidates.device)

    def _confidence(self, distances: Tensor, target_distance: Tensor) -> Tensor:
        """Return the confidence of the used labels, `[N, 1]` or `[N, K]`."""
        how = self.settings.distance_normalisation
        if self.differences.confidence == "item":
            return item_confidence(normalise_listed_distances(distances, normalisation=how))
        normalised = normalise_distances(target_distance, normalisation=how)
        return sequence_confidence(normalised, size=self.settings.top_k).unsqueeze(1)


def _check(ranked_items: Tensor, distances: Tensor, target_distance: Tensor, label_row: Tensor, top_k: int) -> None:
    if ranked_items.ndim != 2 or ranked_items.shape[1] < top_k:
        raise ValueError(f"ranked_items must be [N, {top_k} or more], not {list(ranked_items.shape)}")
    if len(ranked_items):
        require_scores("distances", distances, (len(ranked_items), ranked_items.shape[1]))
        require_scores("target_distance", target_distance, (len(ranked_items),))
    ordered = ranked_items[:, :top_k].sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise ValueError("ranked_items lists an item twice")
    if label_row.ndim != 1 or bool((label_row >= len(ranked_items)).any()):
        raise ValueError(f"label_row must be a vector of rows below {len(ranked_items)}")

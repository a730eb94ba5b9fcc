"""From settings and a teacher's labels to distillers."""

import numpy as np
import torch
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.knowledge.store import Labels
from dllm2rec.losses.base import Loss
from dllm2rec.losses.dros import DROSLoss


def build_distillers(
    settings: DLLM2RecSettings,
    *,
    labels: Labels | None,
    rows: NDArray[np.int64],
    loss: Loss,
) -> list[Distiller]:
    """Build what joins the base loss. Embedding distillation is no term: it is in the student, see `adapt_student`.

    Args:
        settings: the method.
        labels: of the teacher; None or lists of length 0 for a teacher that gives item vectors only.
        rows: for each training example its row in ``labels`` or -1, from `align`.
        loss: the base loss, whose robust term the candidates may get.

    Raises:
        UserError: the teacher's lists are shorter than `top_k`.
    """
    if labels is None or labels.ranked_items.shape[1] == 0 or settings.lambda_d == 0.0:
        return []
    depth = labels.ranked_items.shape[1]
    if depth < settings.top_k:
        raise UserError(
            f"top_k is {settings.top_k}, but the teacher lists only {depth} items; set top_k to {depth} or less"
        )
    return [
        RankingDistiller(
            ranked_items=torch.from_numpy(labels.ranked_items[:, : settings.top_k].astype(np.int64)),
            distances=torch.from_numpy(labels.distances[:, : settings.top_k].astype(np.float32)),
            target_distance=torch.from_numpy(labels.target_distance.astype(np.float32)),
            label_row=torch.from_numpy(rows.astype(np.int64)),
            settings=settings,
            robust=loss if isinstance(loss, DROSLoss) and decide(settings).dros_on_candidates else None,
        )
    ]

"""From settings and a teacher's labels to distillers."""

import numpy as np
import torch
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.data import Examples
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.settings import DLLM2RecSettings, decide
from dllm2rec.distillation.soft_labels import SoftLabelDistiller, SoftLabelSettings
from dllm2rec.knowledge.confidence import likeliest_temperature
from dllm2rec.knowledge.store import Labels
from dllm2rec.losses.base import Loss
from dllm2rec.losses.dros import DROSLoss
from dllm2rec.losses.softmax import SoftmaxLoss

CALIBRATED = 200_000
"""Most labels that a temperature is found with."""


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
        UserError: the teacher's lists are shorter than `top_k`, or of no training example.
    """
    if labels is None or labels.ranked_items.shape[1] == 0 or settings.lambda_d == 0.0:
        return []
    depth = labels.ranked_items.shape[1]
    if depth < settings.top_k:
        raise UserError(
            f"top_k is {settings.top_k}, but the teacher lists only {depth} items; set top_k to {depth} or less"
        )
    if not (rows >= 0).any():
        raise UserError(
            "method dllm2rec needs rankings of training examples, and this teacher gave none; let it label some "
            "(limits.train), or set method.lambda_d=0 to distil its item vectors alone"
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


def build_soft_labels(
    settings: SoftLabelSettings, *, labels: Labels, rows: NDArray[np.int64], training: Examples, loss: Loss
) -> SoftLabelDistiller:
    """Build the distiller of soft labels.

    Args:
        settings: the method.
        labels: of the teacher.
        rows: for each training example its row in ``labels`` or -1, from `align`.
        training: the training examples.
        loss: the base loss.

    Raises:
        UserError: the base loss is no softmax, or no training example has a label.
    """
    if not isinstance(loss, SoftmaxLoss):
        raise UserError("method soft-labels shares out one softmax; set loss.kind=softmax")
    labelled = rows >= 0
    if not labelled.any() or labels.ranked_items.shape[1] == 0:
        raise UserError(
            "method soft-labels needs rankings of training examples, and this teacher gave none; let it label some "
            "(limits.train), or take method vectors"
        )
    items = labels.ranked_items[:, : settings.top_k]
    distances = labels.distances[:, : settings.top_k].astype(np.float32)
    used, target = rows[labelled], training.target[labelled]
    trusted = distances[used]
    absent = np.zeros(trusted.shape, dtype=np.bool_)
    if loss.leave_history:
        for older in training.history[labelled].T:
            absent |= items[used] == older[:, None]
    if loss.since is not None:
        absent |= loss.since.numpy()[items[used]] > training.time[labelled][:, None]
    trusted[absent & (items[used] != target[:, None])] = np.inf
    some = np.unique(np.linspace(0, len(used) - 1, min(CALIBRATED, len(used))).astype(np.int64))
    temperature = settings.temperature or likeliest_temperature(
        ranked_items=items[used[some]],
        distances=trusted[some],
        target=target[some],
        num_items=training.num_items,
    )
    place = np.where(labelled, np.cumsum(labelled) - 1, -1)
    return SoftLabelDistiller(
        ranked_items=torch.from_numpy(items[used]),
        distances=torch.from_numpy(distances[used]),
        label_row=torch.from_numpy(place),
        temperature=temperature,
        weight=settings.weight,
        top_k=settings.top_k,
        competes=loss.competes,
        leave_history=loss.leave_history,
        since=loss.since,
    )

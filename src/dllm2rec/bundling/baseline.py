"""Verb `export` of a dataset: the reference that a student must beat becomes a bundle, and serves as a student does.

That is item-kNN, with text neighbours where there are item vectors, following demand after the cut: what tables call
"item-kNN, demand" and "item-kNN + text, demand".
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from dllm2rec.bundling.bundles import (
    MAX_LOSS,
    PROBES,
    SHOWN,
    Check,
    compare_lists,
    require_close,
    write_catalogue,
    write_encoder,
    write_manifest,
    write_neighbours,
)
from dllm2rec.core.arrays import evenly
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, require_absent
from dllm2rec.data import Dataset, TrainOn
from dllm2rec.evaluation.metrics import TOP
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.evaluation.references import COUNTING, COUNTING_WITH_TEXT, Following, follow_demand, with_text_weight
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.serving.bundle import ENCODER, NEIGHBOURS, TABLE, TEXT
from dllm2rec.serving.manifest import BundleManifest, TextSource
from dllm2rec.serving.packing import Precision, pack
from dllm2rec.teachers.references import Blend, BlendSettings, ItemKNN, ItemKNNSettings, column_scale, fit_reference
from dllm2rec.workflow.evaluating import metrics
from dllm2rec.workflow.labelling import encoder_of
from dllm2rec.workflow.runs import software

TRAIN_ON: TrainOn = "before-cut"


@dataclass(frozen=True, kw_only=True)
class BaselineExport:
    """Result of `export_baseline`.

    Attributes:
        path: the bundle.
        bytes: of all its files.
        name: of the reference, as tables call it.
        text_weight: of text neighbours beside item-kNN; 0 where no titles are read.
        metrics: on the test examples.
        check: how its lists compare with those of the reference.
    """

    path: Path
    bytes: int
    name: str
    text_weight: float
    metrics: dict[str, float]
    check: Check


def export_baseline(
    dataset: Dataset,
    *,
    out: Path,
    knowledge: Knowledge | None = None,
    precision: Precision = "float32",
    max_loss: float = MAX_LOSS,
    shown: int = SHOWN,
) -> BaselineExport:
    """Count every event before the cut, let validation choose all weights, and write the bundle, whole or not at all.

    Args:
        dataset: to count.
        out: the bundle directory; must not exist.
        knowledge: with item vectors, by which titles are read; without, nothing is known of titles.
        precision: of text vectors on disk; in any but float32 counts have half precision.
        max_loss: most NDCG@20, as a share of what there was, that a smaller precision may lose.
        shown: histories of test examples that the bundle's page shows.

    Raises:
        UserError: something is at ``out``, the knowledge is of another dataset or has no item vectors, the bundle would
            not recommend the same in float32, or loses more than ``max_loss``.
    """
    require_absent(out)
    vectors = None if knowledge is None else _vectors(knowledge, dataset)
    open_settings = BlendSettings() if vectors is not None else ItemKNNSettings()
    settings = with_text_weight(open_settings, dataset, item_vectors=vectors, train_on=TRAIN_ON)
    sequences = dataset.training_sequences(TRAIN_ON)
    reference = fit_reference(settings, dataset, item_vectors=vectors, sequences=sequences)
    counted = follow_demand(reference, dataset, TRAIN_ON)
    ranks = rank_targets(counted.score, dataset.examples("test"), top_k=TOP)
    manifest = BundleManifest(
        student=f"{COUNTING if vectors is None else COUNTING_WITH_TEXT}, demand",
        num_items=dataset.num_items,
        dim=1,
        history=dataset.manifest.history,
        again=counted.weights.again,
        ever=counted.weights.ever,
        dataset={"name": dataset.manifest.name, "content_hash": dataset.content_hash},
        columns=dataset.manifest.columns.model_dump(exclude_none=True),
        metrics=metrics(ranks, dataset),
        settings={
            "reference": settings.model_dump(mode="json"),
            "demand": counted.weights.model_dump(mode="json"),
            "train_on": TRAIN_ON,
        },
        software=software(),
        precision=precision,
        files={},
    )
    with atomic_path(out) as target:
        target.mkdir()
        write_catalogue(target, dataset, knowledge, shown=shown)
        _write(target, manifest, dataset, counted, knowledge)
        check = compare_lists(target, dataset, counted.score)
        require_close(check, dataset.path, precision, max_loss)
    return BaselineExport(
        path=out,
        bytes=sum(file.stat().st_size for file in out.iterdir()),
        name=manifest.student,
        text_weight=_text_weight(counted),
        metrics=manifest.metrics,
        check=check,
    )


class _DecayedSum(nn.Module):
    """The encoder of the baseline: the sum of the rows of a history, each times ``decay ** age``."""

    weights: Tensor

    def __init__(self, *, length: int, decay: float) -> None:
        super().__init__()
        self.register_buffer("weights", (decay ** torch.arange(length).flip(0)).unsqueeze(-1))

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        return (self.weights * embedded * mask.unsqueeze(-1)).sum(dim=1)


def _vectors(knowledge: Knowledge, dataset: Dataset) -> NDArray[np.float32]:
    require_same_dataset(knowledge, dataset)
    if knowledge.item_vectors is None:
        raise UserError(
            f"{knowledge.path}: has no item vectors, which the baseline reads titles by; leave it out, or name "
            "knowledge that has some, such as --teacher blend or encoder gives"
        )
    return knowledge.item_vectors


def _text_weight(counted: Following) -> float:
    return counted.reference.text_weight if isinstance(counted.reference, Blend) else 0.0


def _write(
    target: Path, manifest: BundleManifest, dataset: Dataset, counted: Following, knowledge: Knowledge | None
) -> None:
    reference, weight = counted.reference, np.float32(_text_weight(counted))
    knn = reference.knn if isinstance(reference, Blend) else reference
    assert isinstance(knn, ItemKNN)  # noqa: S101 - that is what was fitted
    rows, text = np.zeros((dataset.num_items, 1), np.float32), None
    if isinstance(reference, Blend) and knowledge is not None and weight > 0:
        rows = reference.text.vectors * np.sqrt(weight)
        text = _write_text(target / TEXT, knowledge, weight=weight, new=counted.weights.new)
    width = rows.shape[1]
    popularity = dataset.train_counts(TRAIN_ON).astype(np.float32)
    save_file(
        pack(rows, "input", manifest.precision) | {"popularity": popularity, "bias": counted.shift}, target / TABLE
    )
    decay = reference.text.decay if isinstance(reference, Blend) else knn.decay
    summed = _DecayedSum(length=manifest.history, decay=decay).eval()
    write_encoder(summed, target / ENCODER, history=manifest.history, width=width)
    write_neighbours(knn, target / NEIGHBOURS, precision=manifest.precision)
    write_manifest(target, replace(manifest, dim=width, neighbours_decay=knn.decay, text=text))


def _write_text(file: Path, knowledge: Knowledge, *, weight: np.float32, new: float) -> TextSource:
    """Write how the text vector of a new item becomes its row: its direction, on the catalogue's scale."""
    vectors = knowledge.item_vectors
    assert vectors is not None  # noqa: S101 - the caller read titles by them
    mean, deviation = column_scale(vectors)
    probes = evenly(PROBES, len(vectors))
    tensors = {
        "mean": mean,
        "deviation": deviation,
        "probes": vectors[probes],
        "directions": np.array(np.sqrt(weight)),
    }
    save_file(tensors, file)
    return TextSource(model=encoder_of(knowledge), weight=1.0, probes=probes.tolist(), bias=new)

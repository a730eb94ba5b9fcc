"""Verb `export`: a trained student becomes a bundle that serves without PyTorch."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from dllm2rec.bundling.bundles import (
    MAX_LOSS,
    PROBES,
    SHOWN,
    Check,
    compare_lists,
    require_close,
    some_examples,
    top_lists,
    write_catalogue,
    write_encoder,
    write_manifest,
    write_neighbours,
)
from dllm2rec.core.arrays import evenly
from dllm2rec.core.files import atomic_path, require_absent
from dllm2rec.data import Dataset
from dllm2rec.evaluation.agreement import overlap
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.serving.approximate import write_index
from dllm2rec.serving.bundle import ENCODER, INDEX, NEIGHBOURS, TABLE, TEXT
from dllm2rec.serving.manifest import BundleManifest, TextSource
from dllm2rec.serving.packing import Precision, pack
from dllm2rec.serving.recommender import Recommender
from dllm2rec.students.base import Student
from dllm2rec.students.item_table import scale_of
from dllm2rec.students.projection import Projector
from dllm2rec.teachers.references import ItemKNN
from dllm2rec.workflow.building import knowledge_of, learned_from, load_student, require_free_of_texts, text_directions
from dllm2rec.workflow.evaluating import dataset_of
from dllm2rec.workflow.labelling import encoder_of
from dllm2rec.workflow.runs import Run


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export gave.

    Attributes:
        path: the bundle.
        bytes: of all its files.
        check: how its lists compare with PyTorch's.
        recall: share of the exact top 20 that the approximate index finds; None without one.
    """

    path: Path
    bytes: int
    check: Check
    recall: float | None


def export(
    run: Run,
    *,
    out: Path,
    dataset: Dataset | None = None,
    knowledge: Knowledge | None = None,
    precision: Precision = "float32",
    index: bool = False,
    max_loss: float = MAX_LOSS,
    shown: int = SHOWN,
) -> Export:
    """Write the bundle of a run, whole or not at all, after comparing what it recommends with what PyTorch does.

    Args:
        run: finished.
        out: the bundle directory; must not exist.
        dataset: that the run was trained on; by default it is looked for where it lay then.
        knowledge: that taught the run, if any; the same.
        precision: of the item vectors on disk. In memory they are float32 all the same.
        index: also write an approximate index, for catalogues of millions.
        max_loss: most NDCG@20, as a share of PyTorch's, that a smaller precision may lose on the checked histories.
        shown: histories of test examples that the bundle's page shows.

    Raises:
        UserError: the run is not finished or its student reads texts, something is at ``out``, the bundle would not
            recommend the same in float32, or loses more than ``max_loss``.
    """
    run.finished()
    require_free_of_texts(run, "export")
    require_absent(out)
    dataset = dataset_of(run, dataset, option="--dataset")
    knowledge = knowledge_of(run, knowledge, option="--knowledge")
    student = load_student(run, dataset, knowledge)
    with atomic_path(out) as target:
        target.mkdir()
        write_catalogue(target, dataset, knowledge, shown=shown)
        _write(target, run, dataset, student, knowledge, precision=precision, index=index)
        check = compare_lists(target, dataset, student)
        require_close(check, run.path, precision, max_loss)
        recall = _recall(target, dataset) if index else None
    size = sum(file.stat().st_size for file in out.iterdir())
    return Export(path=out, bytes=size, check=check, recall=recall)


class _Encoder(nn.Module):
    """What of a student goes into the ONNX file: all but the item table."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        return self.student.encode_rows(embedded, mask)


def _write(
    target: Path,
    run: Run,
    dataset: Dataset,
    student: Student,
    knowledge: Knowledge | None,
    *,
    precision: Precision,
    index: bool,
) -> None:
    _write_table(target, student, dataset, precision=precision, index=index)
    write_student(student, target / ENCODER)
    seen = torch.from_numpy(dataset.train_counts(learned_from(run.config.settings)) > 0)
    text = _write_text(target / TEXT, run, student, knowledge, seen=seen)
    manifest = replace(_manifest(run, dataset, student), text=text, precision=precision)
    if isinstance(student.transitions, ItemKNN):
        write_neighbours(student.transitions, target / NEIGHBOURS, precision=precision)
        manifest = replace(manifest, neighbours_decay=student.transitions.decay)
    write_manifest(target, manifest)


def _write_text(
    file: Path, run: Run, student: Student, knowledge: Knowledge | None, *, seen: Tensor
) -> TextSource | None:
    """Write how a text vector becomes an item vector, if the student's output is tied to text.

    ``seen`` `[V]` says which items training saw: they lend their offsets.
    """
    projector = student.table.projector
    if (
        not isinstance(projector, Projector)
        or not student.table.tied
        or knowledge is None
        or knowledge.item_vectors is None
    ):
        return None
    vectors = torch.from_numpy(knowledge.item_vectors)
    mean, deviation = scale_of(vectors, run.config.settings.student.vector_scaling)
    probes = evenly(PROBES, len(vectors))
    tensors = {"mean": mean, "deviation": deviation, "probes": vectors[probes].float(), **projector.state_dict()}
    if run.config.settings.student.unseen_offset == "neighbours" and student.table.offset is not None:
        lenders = seen.nonzero().squeeze(1)
        with torch.no_grad():
            projected = projector(student.table.item_vectors, None)[lenders] * student.table.text_weight
        tensors |= {"known": lenders.to(torch.int32), "projected": projected.to(torch.float16)}
    demand, found = run.finished().fit.demand, text_directions(student, run.config.settings, student.num_items)
    if student.table.near is not None and demand is not None and found is not None:
        tensors["directions"] = found.basis * demand.text**0.5
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}, file)
    return TextSource(
        model=encoder_of(knowledge),
        weight=student.table.text_weight,
        probes=probes.tolist(),
        bias=0.0 if demand is None else demand.new,
    )


def _write_table(target: Path, student: Student, dataset: Dataset, *, precision: Precision, index: bool) -> None:
    with torch.no_grad():
        weight, bias = (None if part is None else part.detach().numpy() for part in student.output_matrix())
    assert weight is not None  # noqa: S101 - only the bias may be missing
    tensors = pack(student.table.fold().detach().numpy(), "input", precision)
    if not student.table.tied:
        tensors |= pack(weight, "output", precision)
    tensors["popularity"] = dataset.train_counts("before-cut").astype(np.float32)
    if bias is not None:
        tensors["bias"] = bias
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, target / TABLE)
    if index:
        write_index(target / INDEX, weight, bias)


def write_student(student: Student, file: Path) -> None:
    """Write all of a student but its item table as ONNX, see `write_encoder`."""
    encoder = _Encoder(student).eval()
    write_encoder(encoder, file, history=student.history, width=student.width)


def _manifest(run: Run, dataset: Dataset, student: Student) -> BundleManifest:
    evaluation = run.finished().evaluated("test")
    return BundleManifest(
        student=f"{run.config.label}, seed {run.config.seed}",
        num_items=student.num_items,
        dim=student.width,
        history=student.history,
        again=student.again,
        ever=student.ever,
        dataset={"name": dataset.manifest.name, "content_hash": dataset.content_hash},
        columns=dataset.manifest.columns.model_dump(exclude_none=True),
        metrics={} if evaluation is None else evaluation.metrics,
        settings=run.config.settings.model_dump(mode="json"),
        software=run.config.software,
        files={},
    )


def _recall(bundle: Path, dataset: Dataset) -> float:
    """Return the share of the exact top 20 that the approximate index finds."""
    examples = some_examples(dataset.examples("test"))
    exact, found = (top_lists(Recommender.load(bundle, approximate=on), examples) for on in (False, True))
    return overlap(exact, found)

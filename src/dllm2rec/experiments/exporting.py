"""Verb `export`: a trained student becomes a bundle that serves without PyTorch."""

import json
import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import save_file
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, hash_file
from dllm2rec.data import Dataset, Examples
from dllm2rec.evaluation.agreement import overlap
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.evaluation.ranks import best_items, ranks_from_lists
from dllm2rec.experiments.evaluating import dataset_of
from dllm2rec.experiments.running import counted, knowledge_of, rebuild, require_free_of_texts, text_directions
from dllm2rec.experiments.runs import Run
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.serving.approximate import write_index
from dllm2rec.serving.bundle import (
    CARD,
    ENCODER,
    EXAMPLES,
    FILES,
    INDEX,
    ITEMS,
    MARKER,
    TABLE,
    TEXT,
)
from dllm2rec.serving.manifest import OPSET, BundleManifest, TextSource
from dllm2rec.serving.packing import Precision, pack
from dllm2rec.serving.recommender import Recommender
from dllm2rec.students.base import Student
from dllm2rec.students.item_table import scale_of
from dllm2rec.students.projection import Projector

CHECKED = 1000
SHOWN = 20
PROBES = 8
TOP = 20
TOLERANCE = 1e-4
MAX_LOSS = 0.01


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a bundle's lists compare with PyTorch's, on real histories.

    Attributes:
        examples: that were compared.
        different: those whose lists differ by more than the order of scores within `TOLERANCE` of each other.
        overlap: mean share of PyTorch's top 20 that the bundle lists, too.
        ndcg: NDCG@20 of the bundle on them.
        pytorch_ndcg: of PyTorch.
    """

    examples: int
    different: int
    overlap: float
    ndcg: float
    pytorch_ndcg: float

    @property
    def loss(self) -> float:
        """NDCG@20 that was lost, as a share of PyTorch's."""
        return 1 - self.ndcg / self.pytorch_ndcg if self.pytorch_ndcg else 0.0


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
) -> Export:
    """Write the bundle of a run, whole or not at all, after comparing what it recommends with what PyTorch does.

    Args:
        run: finished.
        out: the bundle directory; must not exist.
        dataset: that the run was trained on; by default it is looked for where it lay then.
        knowledge: that taught the run, if any; the same.
        precision: of the item vectors on disk; `int8` also makes the encoder's matrices smaller. In memory they are
            float32 all the same.
        index: also write an approximate index, for catalogues of millions.
        max_loss: most NDCG@20, as a share of PyTorch's, that a smaller precision may lose on the checked histories.

    Raises:
        UserError: the run is not finished or its student reads texts, something is at ``out``, the bundle would not
            recommend the same in float32, or loses more than ``max_loss``.
    """
    run.finished()
    require_free_of_texts(run, "export")
    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out or remove it")
    dataset = dataset_of(run, dataset, option="--dataset")
    knowledge = knowledge_of(run, knowledge, option="--knowledge")
    student = rebuild(run, dataset, knowledge)
    with atomic_path(out) as target:
        target.mkdir()
        _write(target, run, dataset, student, knowledge, precision=precision, index=index)
        check = _compare(target, dataset, student)
        _require_close(check, run, precision, max_loss)
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
    ids = [item if isinstance(item, int) else str(item) for item in dataset.items["item_id"].to_list()]
    items = list(zip(ids, dataset.titles, strict=True))
    (target / ITEMS).write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    examples = _examples(dataset.examples("test"), ids, knowledge)
    (target / EXAMPLES).write_text(json.dumps(examples, ensure_ascii=False), encoding="utf-8")
    _write_table(target, student, dataset, precision=precision, index=index)
    write_encoder(student, target / ENCODER, precision=precision)
    seen = torch.from_numpy(dataset.train_counts(counted(run.config.settings)) > 0)
    text = _write_text(target / TEXT, run, student, knowledge, seen=seen)
    manifest = replace(_manifest(run, dataset, student), text=text, precision=precision)
    write_manifest(target, manifest)


def write_manifest(bundle: Path, manifest: BundleManifest) -> None:
    """Write `bundle.json`, with the hashes of the files that lie there, and the card."""
    (bundle / CARD).write_text(_card(manifest), encoding="utf-8")
    files = [*FILES, *(name for name in (TEXT, INDEX) if (bundle / name).exists())]
    manifest = replace(manifest, files={name: hash_file(bundle / name) for name in files})
    (bundle / MARKER).write_text(manifest.to_json(), encoding="utf-8")


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
    probes = np.linspace(0, len(vectors) - 1, min(PROBES, len(vectors))).astype(np.int64)
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
    manifest = knowledge.manifest
    return TextSource(
        model=manifest.model if manifest.teacher == "encoder" else None,
        weight=student.table.text_weight,
        probes=probes.tolist(),
        bias=0.0 if demand is None else demand.new,
    )


def _examples(test: Examples, ids: list[str | int], knowledge: Knowledge | None) -> list[dict[str, object]]:
    """Choose a few test examples to look at, first of all those for which the teacher wrote something."""
    wrote: dict[int, str] = {}
    if knowledge is not None:
        labels = knowledge.labels
        wrote = {int(one): text for one, text in zip(labels.example_id, labels.generated_text, strict=True) if text}
    written = np.flatnonzero(np.isin(test.example_id, list(wrote)))
    rows = written if len(written) else np.arange(len(test))
    chosen = rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(np.int64)]
    return [
        {
            "history": [ids[item] for item in test.history[row] if item != len(ids)],
            "next": ids[test.target[row]],
            "wrote": wrote.get(int(test.example_id[row])),
        }
        for row in chosen
    ]


def _write_table(target: Path, student: Student, dataset: Dataset, *, precision: Precision, index: bool) -> None:
    with torch.no_grad():
        weight, bias = (None if part is None else part.detach().numpy() for part in student.output_matrix())
    assert weight is not None  # noqa: S101 - only the bias may be missing
    try:
        tensors = pack(student.table.fold().detach().numpy(), "input", precision)
        if not student.table.tied:
            tensors |= pack(weight, "output", precision)
    except ValueError as error:
        raise UserError(f"{error}; export with --precision float32") from None
    tensors["popularity"] = dataset.train_counts("before-cut").astype(np.float32)
    if bias is not None:
        tensors["bias"] = bias
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, target / TABLE)
    if index:
        write_index(target / INDEX, weight, bias)


def write_encoder(student: Student, file: Path, *, precision: Precision = "float32") -> None:
    """Write all of a student but its item table as ONNX: item vectors and mask in, sequence vectors out."""
    if precision == "int8":
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / ENCODER
            write_encoder(student, whole)
            logging.disable(logging.WARNING)  # it recommends a pass that changes nothing here
            try:
                quantize_dynamic(whole, file, weight_type=QuantType.QInt8)
            finally:
                logging.disable(logging.NOTSET)
        return
    embedded = torch.zeros(2, student.history, student.width)
    mask = torch.ones(2, student.history, dtype=torch.bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of sizes that are constants, and of its own age
        torch.onnx.export(
            _Encoder(student).eval(),
            (embedded, mask),
            str(file),
            input_names=["embedded", "mask"],
            output_names=["hidden"],
            dynamic_axes={name: {0: "batch"} for name in ("embedded", "mask", "hidden")},
            opset_version=OPSET,
            dynamo=False,
        )


def _manifest(run: Run, dataset: Dataset, student: Student) -> BundleManifest:
    evaluation = run.finished().evaluated("test")
    return BundleManifest(
        student=f"{run.config.label}, seed {run.config.seed}",
        num_items=student.num_items,
        dim=student.width,
        history=student.history,
        again=student.again,
        dataset={"name": dataset.manifest.name, "content_hash": dataset.content_hash},
        metrics={} if evaluation is None else evaluation.metrics,
        settings=run.config.settings.model_dump(mode="json"),
        software=run.config.software,
        files={},
    )


def _card(manifest: BundleManifest) -> str:
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in manifest.metrics.items())
    table = (
        f"| test | value |\n|---|---:|\n{measured}"
        if measured
        else "It was not measured: `dllm2rec evaluate` does that."
    )
    name, digest = manifest.dataset["name"], manifest.dataset["content_hash"]
    return f"""# {manifest.student}

A sequential recommender over {manifest.num_items:,} items of {name} (content hash {digest}):
the newest {manifest.history} items of a history give the next ones. Made by `dllm2rec export`; it needs numpy and
onnxruntime.

    dllm2rec recommend . --history "id, id"

{table}

Ranks are over the whole catalogue; all settings and versions are in `{MARKER}`. It knows what the log knew: items
that were rarely chosen are rarely recommended, and it was measured on one split of one log.
"""


def _compare(bundle: Path, dataset: Dataset, student: Student) -> Check:
    """Compare a bundle's lists with PyTorch's; scores as good as equal may trade places."""
    examples = _some(dataset.examples("test"))
    with torch.inference_mode():
        expected = student(torch.from_numpy(examples.history.astype(np.int64)))
    lists = best_items(expected, TOP).numpy()
    found = _lists(Recommender.load(bundle), examples)
    best, scores = (
        np.sort(np.take_along_axis(expected.numpy(), one.astype(np.int64), axis=1)) for one in (lists, found)
    )
    close = np.isclose(best, scores, rtol=TOLERANCE, atol=TOLERANCE).all(axis=1)
    return Check(
        examples=len(examples),
        different=int((~close).sum()),
        overlap=overlap(lists, found),
        ndcg=_ndcg(found, examples),
        pytorch_ndcg=_ndcg(lists, examples),
    )


def _recall(bundle: Path, dataset: Dataset) -> float:
    """Return the share of the exact top 20 that the approximate index finds."""
    examples = _some(dataset.examples("test"))
    exact, found = (_lists(Recommender.load(bundle, approximate=on), examples) for on in (False, True))
    return overlap(exact, found)


def _lists(recommender: Recommender, examples: Examples) -> NDArray[np.int32]:
    """Recommend to real histories; returns rows `[N, 20]`, or the whole catalogue; -1 where an index finds fewer."""
    ids = np.array(recommender.bundle.ids, dtype=object)
    index = {item: place for place, item in enumerate(ids)}
    histories = [ids[row[row != examples.num_items]].tolist() for row in examples.history]
    lists = np.full((len(histories), min(TOP, len(ids))), -1, np.int32)
    for row, one in enumerate(recommender.recommend(histories, k=TOP)):
        lists[row, : len(one.items)] = [index[item] for item in one.items]
    return lists


def _ndcg(lists: NDArray[np.int32], examples: Examples) -> float:
    return float(ndcg(ranks_from_lists(lists, examples).rank, TOP).mean())


def _require_close(check: Check, run: Run, precision: Precision, max_loss: float) -> None:
    if precision == "float32":
        if check.different:
            raise UserError(
                f"{run.path}: {check.different} of {check.examples} histories get another top {TOP} from the bundle "
                "than from PyTorch; nothing was exported"
            )
    elif check.loss > max_loss:
        raise UserError(
            f"{run.path}: as {precision} it loses {check.loss:.1%} of its NDCG@20 on {check.examples} histories "
            f"({check.overlap:.1%} of the lists are the same), more than {max_loss:.1%}; nothing was exported: take a "
            f"greater precision, or --max-loss {check.loss + 0.001:.3f}"
        )


def _some(examples: Examples) -> Examples:
    return examples.take(np.linspace(0, len(examples) - 1, min(CHECKED, len(examples))).astype(np.int64))

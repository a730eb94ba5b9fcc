"""Verb `export`: a trained student becomes a bundle that serves without PyTorch."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, hash_file
from dllm2rec.data import Dataset, Examples
from dllm2rec.evaluation.ranks import best_items
from dllm2rec.experiments.evaluating import dataset_of
from dllm2rec.experiments.running import knowledge_of, rebuild
from dllm2rec.experiments.runs import Run
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.serving.bundle import (
    CARD,
    ENCODER,
    EXAMPLES,
    FILES,
    ITEMS,
    MARKER,
    OPSET,
    TABLE,
    TEXT,
    BundleManifest,
    TextSource,
)
from dllm2rec.serving.recommender import Recommender
from dllm2rec.students.base import Student
from dllm2rec.students.item_table import scale_of

CHECKED = 1000
SHOWN = 20
PROBES = 8
TOP = 20
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export gave.

    Attributes:
        path: the bundle.
        bytes: of all its files.
        checked: real histories whose top 20 were compared with PyTorch's.
        different: those whose lists differ by more than the order of scores within `TOLERANCE` of each other.
    """

    path: Path
    bytes: int
    checked: int
    different: int


def export(run: Run, *, out: Path, dataset: Dataset | None = None, knowledge: Knowledge | None = None) -> Export:
    """Write the bundle of a run, whole or not at all, after comparing what it recommends with what PyTorch does.

    Args:
        run: finished.
        out: the bundle directory; must not exist.
        dataset: that the run was trained on; by default it is looked for where it lay then.
        knowledge: that taught the run, if any; the same.

    Raises:
        UserError: the run is not finished, something is at ``out``, or the bundle would not recommend the same.
    """
    run.finished()
    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out or remove it")
    dataset = dataset_of(run, dataset)
    knowledge = knowledge_of(run, knowledge)
    student = rebuild(run, dataset, knowledge)
    with atomic_path(out) as target:
        target.mkdir()
        _write(target, run, dataset, student, knowledge)
        checked, different = _compare(target, dataset, student)
        if different:
            raise UserError(
                f"{run.path}: {different} of {checked} histories get another top {TOP} from the bundle than from "
                "PyTorch; nothing was exported"
            )
    size = sum(file.stat().st_size for file in out.iterdir())
    return Export(path=out, bytes=size, checked=checked, different=different)


class _Encoder(nn.Module):
    """What of a student goes into the ONNX file: all but the item table."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        return self.student.encode_embedded(embedded, mask)


def _write(target: Path, run: Run, dataset: Dataset, student: Student, knowledge: Knowledge | None) -> None:
    ids = [item if isinstance(item, int) else str(item) for item in dataset.items["item_id"].to_list()]
    items = list(zip(ids, dataset.titles, strict=True))
    (target / ITEMS).write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    examples = _examples(dataset.examples("test"), ids, knowledge)
    (target / EXAMPLES).write_text(json.dumps(examples, ensure_ascii=False), encoding="utf-8")
    save_file(_table(student, dataset), target / TABLE)
    write_encoder(student, target / ENCODER)
    text = _write_text(target / TEXT, run, student, knowledge)
    manifest = _manifest(run, dataset, student).model_copy(update={"text": text})
    (target / CARD).write_text(_card(manifest), encoding="utf-8")
    write_manifest(target, manifest)


def write_manifest(bundle: Path, manifest: BundleManifest) -> None:
    """Write `bundle.json`, with the hashes of the files that lie there."""
    files = [*FILES, *([] if manifest.text is None else [TEXT])]
    manifest = manifest.model_copy(update={"files": {name: hash_file(bundle / name) for name in files}})
    (bundle / MARKER).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _write_text(file: Path, run: Run, student: Student, knowledge: Knowledge | None) -> TextSource | None:
    """Write how a text vector becomes an item vector, if the student's output is tied to text."""
    projector = student.table.projector
    if projector is None or not student.table.tied or knowledge is None or knowledge.item_vectors is None:
        return None
    vectors = torch.from_numpy(knowledge.item_vectors)
    mean, deviation = scale_of(vectors, run.config.settings.student.vector_scaling)
    probes = np.linspace(0, len(vectors) - 1, min(PROBES, len(vectors))).astype(np.int64)
    tensors = {"mean": mean, "deviation": deviation, "probes": vectors[probes].float(), **projector.state_dict()}
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}, file)
    manifest = knowledge.manifest
    return TextSource(
        model=manifest.model if manifest.teacher == "encoder" else None,
        weight=student.table.text_weight,
        probes=probes.tolist(),
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


def _table(student: Student, dataset: Dataset) -> dict[str, NDArray[np.float32]]:
    tensors = {
        "input": student.table.fold().detach().numpy(),
        "popularity": dataset.train_counts("before-cut").astype(np.float32),
    }
    with torch.no_grad():
        weight, bias = student.output_matrix()
    if not student.table.tied:
        tensors["output"] = weight.detach().numpy()
    if bias is not None:
        tensors["bias"] = bias.detach().numpy()
    return {name: np.ascontiguousarray(values) for name, values in tensors.items()}


def write_encoder(student: Student, file: Path) -> None:
    """Write all of a student but its item table as ONNX: item vectors and mask in, sequence vectors out."""
    embedded = torch.zeros(2, student.history, student.dim)
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
    evaluation = run.finished().evaluation.get("test")
    return BundleManifest(
        student=f"{run.config.label}, seed {run.config.seed}",
        num_items=student.num_items,
        dim=student.dim,
        history=student.history,
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


def _compare(bundle: Path, dataset: Dataset, student: Student) -> tuple[int, int]:
    """Count the histories whose best items differ from PyTorch's; scores as good as equal may trade places."""
    examples = _some(dataset.examples("test"))
    recommender = Recommender.load(bundle)
    ids = np.array(recommender.bundle.ids, dtype=object)
    with torch.inference_mode():
        expected = student(torch.from_numpy(examples.history.astype(np.int64)))
    best = np.sort(np.take_along_axis(expected.numpy(), best_items(expected, TOP).numpy().astype(np.int64), axis=1))[
        :, ::-1
    ]
    different = 0
    histories = [ids[row[row != dataset.num_items]].tolist() for row in examples.history]
    index = {item: place for place, item in enumerate(ids)}
    for row, found in enumerate(recommender.recommend(histories, k=TOP)):
        scores = expected[row, [index[item] for item in found.items]].numpy()
        different += not np.allclose(scores, best[row, : len(scores)], rtol=TOLERANCE, atol=TOLERANCE)
    return len(examples), different


def _some(examples: Examples) -> Examples:
    return examples.take(np.linspace(0, len(examples) - 1, min(CHECKED, len(examples))).astype(np.int64))

"""What all bundles have: catalogue, card, manifest, and a comparison with what they were made from."""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dllm2rec.core.arrays import evenly
from dllm2rec.core.errors import RefusedError, UserError
from dllm2rec.core.files import hash_file
from dllm2rec.core.tensors import best_items
from dllm2rec.data import Columns, Dataset, Examples
from dllm2rec.evaluation.agreement import overlap
from dllm2rec.evaluation.metrics import TOP, ndcg
from dllm2rec.evaluation.ranks import ScoreFunction, histories_for, ranks_from_lists, rows_at_once
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.serving.bundle import CARD, EXAMPLES, FILES, INDEX, ITEMS, MARKER, NEIGHBOURS, TEXT, Bundle
from dllm2rec.serving.manifest import OPSET, BundleManifest
from dllm2rec.serving.neighbours import Neighbours
from dllm2rec.serving.packing import Precision
from dllm2rec.serving.recommender import Recommender
from dllm2rec.teachers.references import ItemKNN

CHECKED = 1000
SHOWN = 20
PROBES = 8
TOLERANCE = 1e-4
SCORES_AT_ONCE = 1 << 23
MAX_LOSS = 0.01


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a bundle's lists compare with those of what it was made from, on real histories.

    Attributes:
        examples: that were compared.
        different: those whose lists differ by more than the order of scores within `TOLERANCE` of each other.
        overlap: mean share of the top 20 of that which the bundle lists, too.
        ndcg: NDCG@20 of the bundle on them.
        source_ndcg: of what it was made from.
    """

    examples: int
    different: int
    overlap: float
    ndcg: float
    source_ndcg: float

    @property
    def loss(self) -> float:
        """NDCG@20 that was lost, as a share of what there was."""
        return 1 - self.ndcg / self.source_ndcg if self.source_ndcg else 0.0


def write_catalogue(bundle: Path, dataset: Dataset, knowledge: Knowledge | None, *, shown: int) -> None:
    """Write ids and titles, and the histories of ``shown`` test examples to look at."""
    ids = [item if isinstance(item, int) else str(item) for item in dataset.items["item_id"].to_list()]
    items = list(zip(ids, dataset.titles, strict=True))
    (bundle / ITEMS).write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    examples = _examples(dataset.examples("test"), ids, knowledge, shown)
    (bundle / EXAMPLES).write_text(json.dumps(examples, ensure_ascii=False), encoding="utf-8")


def log_columns(bundle: Bundle) -> Columns:
    """Return the names that columns have in the log of a bundle's dataset, as far as they were given."""
    return Columns.model_validate(bundle.manifest.columns)


def write_manifest(bundle: Path, manifest: BundleManifest) -> None:
    """Write `bundle.json`, with the hashes of the files that lie there, and the card."""
    (bundle / CARD).write_text(_card(manifest), encoding="utf-8")
    files = [*FILES, *(name for name in (TEXT, NEIGHBOURS, INDEX) if (bundle / name).exists())]
    manifest = replace(manifest, files={name: hash_file(bundle / name) for name in files})
    (bundle / MARKER).write_text(manifest.to_json(), encoding="utf-8")


def write_encoder(encoder: nn.Module, file: Path, *, history: int, width: int) -> None:
    """Write an encoder as ONNX: rows `[B, history, width]` of the item table and their mask in, `[B, width]` out."""
    given = torch.zeros(2, history, width), torch.ones(2, history, dtype=torch.bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of sizes that are constants, and of its own age
        torch.onnx.export(
            encoder,
            given,
            str(file),
            input_names=["embedded", "mask"],
            output_names=["hidden"],
            dynamic_axes={name: {0: "batch"} for name in ("embedded", "mask", "hidden")},
            opset_version=OPSET,
            dynamo=False,
        )


def compare_lists(bundle: Path, dataset: Dataset, source: ScoreFunction) -> Check:
    """Compare a bundle's lists with those of its ``source``; scores as good as equal may trade places."""
    examples = some_examples(dataset.examples("test"))
    found, lists, close = top_lists(Recommender.load(bundle), examples), [], []
    size = rows_at_once(source, examples, SCORES_AT_ONCE)
    for start in range(0, len(examples), size):
        part = slice(start, start + size)
        with torch.inference_mode():
            expected = source(histories_for(source, examples, part))
        lists.append(best_items(expected, TOP).numpy())
        best, scores = (
            np.sort(np.take_along_axis(expected.numpy(), one.astype(np.int64), axis=1))
            for one in (lists[-1], found[part])
        )
        close.append(np.isclose(best, scores, rtol=TOLERANCE, atol=TOLERANCE).all(axis=1))
    expected_lists = np.concatenate(lists)
    return Check(
        examples=len(examples),
        different=int((~np.concatenate(close)).sum()),
        overlap=overlap(expected_lists, found),
        ndcg=_ndcg(found, examples),
        source_ndcg=_ndcg(expected_lists, examples),
    )


def top_lists(recommender: Recommender, examples: Examples) -> NDArray[np.int32]:
    """Recommend to real histories; returns rows `[N, 20]`, or the whole catalogue; -1 where an index finds fewer."""
    ids = np.array(recommender.bundle.ids, dtype=object)
    index = {item: place for place, item in enumerate(ids)}
    histories = []
    for place in range(len(examples)):  # one by one: the longest would make all as wide
        (row,) = examples.known(slice(place, place + 1))
        histories.append(ids[row[row != examples.num_items]].tolist())
    lists = np.full((len(histories), min(TOP, len(ids))), -1, np.int32)
    for row, one in enumerate(recommender.recommend(histories, k=TOP)):
        lists[row, : len(one.items)] = [index[item] for item in one.items]
    return lists


def write_neighbours(knn: ItemKNN, file: Path, *, precision: Precision) -> None:
    """Write what stood near each item, with weights of half precision in any but float32."""
    similarity = knn.similarity
    Neighbours(
        offsets=similarity.indptr.astype(np.int64),
        items=similarity.indices.astype(np.int32),
        weights=similarity.data.astype(np.float32 if precision == "float32" else np.float16),
        decay=knn.decay,
    ).save(file)


def require_close(check: Check, source: Path, precision: Precision, max_loss: float) -> None:
    """Check that a bundle recommends what its source does, or nearly so where precision was given up.

    Raises:
        UserError: it does not though it has the same precision; names ``source``.
        RefusedError: a smaller one loses too much.
    """
    if precision == "float32":
        if check.different:
            raise UserError(
                f"{source}: {check.different} of {check.examples} histories get another top {TOP} from the bundle "
                "than from what it was made from; nothing was exported"
            )
    elif check.loss > max_loss:
        raise RefusedError(
            f"{source}: as {precision} it loses {check.loss:.1%} of its NDCG@20 on {check.examples} histories "
            f"({check.overlap:.1%} of the lists are the same), more than {max_loss:.1%}; nothing was exported: take a "
            f"greater precision, or --max-loss {check.loss + 0.001:.3f}"
        )


def some_examples(examples: Examples) -> Examples:
    """Return as many examples as are compared, evenly over their time."""
    return examples.take(evenly(CHECKED, len(examples)))


def _examples(test: Examples, ids: list[str | int], knowledge: Knowledge | None, count: int) -> list[dict[str, object]]:
    """Choose a few test examples to look at, first of all those for which the teacher wrote something."""
    wrote: dict[int, str] = {}
    if knowledge is not None:
        labels = knowledge.labels
        wrote = {int(one): text for one, text in zip(labels.example_id, labels.generated_text, strict=True) if text}
    written = np.flatnonzero(np.isin(test.example_id, list(wrote)))
    rows = written if len(written) else np.arange(len(test))
    chosen = rows[evenly(count, len(rows))]
    return [
        {
            "history": [ids[item] for item in test.history[row] if item != len(ids)],
            "next": ids[test.target[row]],
            "wrote": wrote.get(int(test.example_id[row])),
        }
        for row in chosen
    ]


def _ndcg(lists: NDArray[np.int32], examples: Examples) -> float:
    return float(ndcg(ranks_from_lists(lists, examples).rank, TOP).mean())


def _card(manifest: BundleManifest) -> str:
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in manifest.metrics.items())
    table = (
        f"| test | value |\n|---|---:|\n{measured}"
        if measured
        else "It was not measured: `dllm2rec evaluate` does that."
    )
    added = f"{manifest.added:,} of the items were added from their titles; the figures are from before that. "
    stored = f"It is stored with the precision of {manifest.precision}; the figures are those of float32. "
    remarks = (added if manifest.added else "") + (stored if manifest.precision != "float32" else "")
    name, digest = manifest.dataset["name"], manifest.dataset["content_hash"]
    return f"""# {manifest.student}

A sequential recommender over {manifest.num_items:,} items of {name} (content hash {digest}):
the newest {manifest.history} items of a history give the next ones. Made by `dllm2rec export`; it needs numpy and
onnxruntime.

    dllm2rec recommend . --history "id, id"

{table}

{remarks}Ranks are over the whole catalogue; all settings and versions are in `{MARKER}`.
It knows what the log knew: items that were rarely chosen are rarely recommended, and it was measured on one split of
one log.
"""

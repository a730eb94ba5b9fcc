"""Import and export of the three files that the code of the DLLM2Rec authors reads (Cui et al., RecSys 2024).

| file                   | shape      | what                                                        |
|------------------------|------------|-------------------------------------------------------------|
| `myrank_train.txt`     | `[N, K]`   | items listed for each training example, the best first      |
| `confidence_train.txt` | `[N, K]`   | distance of each listed item (small is near), despite its name |
| `all_embeddings.pt`    | `[V, D_t]` | item vectors                                                |

Numbers in the two texts are separated by spaces. Row n belongs to the n-th training example in time order, and items
are numbered from 0 as in the catalogue, so the dataset must be cut and ordered as theirs. A `.pt` file is a pickle and
is never read here: item vectors are imported from `.npy`.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from dllm2rec.core.arrays import read_vectors
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, exclusive, explain_os_error, hash_file, require_absent
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import Examples
from dllm2rec.knowledge.align import align
from dllm2rec.knowledge.schema import FALLING, KnowledgeManifest, Labels
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter

RANKING = "myrank_train.txt"
CONFIDENCE = "confidence_train.txt"
VECTORS = "all_embeddings"
_CONVERT = (
    "python -c \"import numpy, torch; numpy.save('{stem}.npy', "
    "torch.load('{stem}.pt', map_location='cpu', weights_only=True).float().numpy())\""
)


@dataclass(frozen=True, kw_only=True)
class _Files:
    ranking: Path | None
    confidence: Path | None
    vectors: Path | None

    def present(self) -> list[Path]:
        return [file for file in (self.ranking, self.confidence, self.vectors) if file is not None]


def import_legacy(dataset: Dataset, source: Path, *, out: Path) -> Knowledge:
    """Turn the original code's files into knowledge.

    The files do not say how far the target is where the list lacks it; it then gets the distance of the last listed
    item, which it is at least.

    Args:
        dataset: whose training examples the rows of the files are, in order.
        source: directory with `myrank_train.txt` and `confidence_train.txt`, with `all_embeddings.npy`, or
            with all three.
        out: directory of the knowledge.

    Raises:
        UserError: a file is missing, is not numbers, or does not fit the dataset; the message names it.
    """
    files = _find(source)
    train = dataset.examples("train")
    labels = _read_labels(files.ranking, files.confidence, train) if files.ranking and files.confidence else None
    vectors = read_vectors(files.vectors, dataset.num_items) if files.vectors else None
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="imported",
        settings={file.name: hash_file(file) for file in files.present()},
        depth=0 if labels is None else labels.ranked_items.shape[1],
        vector_size=None if vectors is None else vectors.shape[1],
    )
    with exclusive(out):
        writer = KnowledgeWriter(out, manifest)
        if vectors is not None:
            writer.write_item_vectors(vectors)
        if labels is not None:
            writer.append(labels.take(np.flatnonzero(~np.isin(labels.example_id, writer.labelled_ids()))))
        return Knowledge.load(out)


def export_legacy(knowledge: Knowledge, dataset: Dataset, *, out: Path) -> None:
    """Write the files that the original code reads, into a new directory.

    Item vectors are written twice: as the `.pt` that the original code reads, and as the `.npy` that `import_legacy`
    reads. The distance of the target has no place in these files.

    Raises:
        UserError: knowledge of another dataset, a training example without a label (the original code has no notion of
            one), or ``out`` exists.
    """
    require_absent(out)
    rows = align(knowledge, dataset, dataset.examples("train"))
    missing = int((rows < 0).sum())
    if missing and knowledge.manifest.depth:
        raise UserError(
            f"{knowledge.path}: {missing} of {len(rows)} training examples have no label, and the original code needs "
            "one for each; label them first with `dllm2rec teach`"
        )
    with atomic_path(out) as target:
        target.mkdir()
        if knowledge.manifest.depth:
            labels = knowledge.labels.take(rows)
            (target / RANKING).write_bytes(_text(labels.ranked_items))
            (target / CONFIDENCE).write_bytes(_text(labels.distances))
        if knowledge.item_vectors is not None:
            _write_vectors(target / VECTORS, knowledge.item_vectors)


def _find(source: Path) -> _Files:
    if not source.is_dir():
        raise UserError(f"{source}: no such directory")
    ranking, confidence = _existing(source / RANKING), _existing(source / CONFIDENCE)
    if (ranking is None) != (confidence is None):
        raise UserError(f"{source}: {RANKING if ranking is None else CONFIDENCE} is missing; the two belong together")
    stem = source / VECTORS
    vectors = _existing(stem.with_suffix(".npy"))
    if vectors is None and stem.with_suffix(".pt").is_file():
        raise UserError(f"{stem}.pt: a pickle, which is not read; convert it with: {_CONVERT.format(stem=stem)}")
    files = _Files(ranking=ranking, confidence=confidence, vectors=vectors)
    if not files.present():
        raise UserError(f"{source}: holds neither {RANKING} with {CONFIDENCE} nor {VECTORS}.npy")
    return files


def _existing(file: Path) -> Path | None:
    return file if file.is_file() else None


def _read_labels(ranking: Path, confidence: Path, train: Examples) -> Labels:
    ranked, distances = _read_text(ranking), _read_text(confidence)
    for file, values in ((ranking, ranked), (confidence, distances)):
        if len(values) != len(train):
            raise UserError(
                f"{file}: {len(values)} rows, and the dataset has {len(train)} training examples; row n must belong to "
                "the n-th of them"
            )
    if ranked.shape != distances.shape:
        raise UserError(f"{confidence}: {distances.shape[1]} columns, {ranking.name} has {ranked.shape[1]}")
    _require_items(ranked, ranking, train.num_items)
    ordered = np.sort(ranked, axis=1)
    _refuse(ordered[:, 1:] == ordered[:, :-1], ranking, "lists an item twice")
    _refuse(~(np.abs(distances) <= np.finfo(np.float32).max), confidence, "holds a distance that is not finite")
    if ranked.shape[1] > 1 and (np.diff(distances, axis=1) < 0).mean() > FALLING:
        raise UserError(f"{confidence}: falls along the rows; it must hold distances (small is near), not similarities")
    hit = ranked == train.target[:, None]
    target_distance = np.where(hit.any(axis=1), distances[np.arange(len(hit)), hit.argmax(axis=1)], distances[:, -1])
    return Labels(
        example_id=train.example_id,
        ranked_items=ranked.astype(np.int32),
        distances=distances.astype(np.float32),
        target_distance=target_distance.astype(np.float32),
        generated_text=[""] * len(train),
    )


def _refuse(bad: NDArray[np.bool_], file: Path, what: str) -> None:
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        raise UserError(f"{file}: row {rows[0] + 1} {what} ({len(rows)} of {len(bad)} rows do); mend the file")


def _require_items(ranked: NDArray[np.float64], file: Path, num_items: int) -> None:
    bad = (ranked != np.floor(ranked)) | (ranked < 0) | (ranked >= num_items) | ~np.isfinite(ranked)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UserError(
            f"{file}: row {row + 1} lists {ranked[row, column]:g}, which is no item of a catalogue numbered from 0 to "
            f"{num_items - 1}"
        )


def _read_text(file: Path) -> NDArray[np.float64]:
    try:
        return np.loadtxt(file, ndmin=2)
    except ValueError as error:
        raise UserError(f"{file}: not a table of numbers ({error})") from None
    except OSError as error:
        raise explain_os_error(error, file) from error


def _text(values: NDArray[np.int32] | NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(values).write_csv(buffer, separator=" ", include_header=False)
    return buffer.getvalue()


def _write_vectors(stem: Path, vectors: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(vectors), buffer)
    stem.with_suffix(".pt").write_bytes(buffer.getbuffer())
    with stem.with_suffix(".npy").open("wb") as handle:
        np.save(handle, vectors, allow_pickle=False)

"""Shards of labels: each a Parquet file and, written after it, a sidecar that says its rows and hash.

A shard counts only with its sidecar. Whoever dies between the two leaves a Parquet file that nobody reads and that the
next writer removes.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PanicException, PolarsError
from pydantic import ValidationError

from dllm2rec.core.files import atomic_path, explain_os_error, hash_file, write_json
from dllm2rec.core.settings import Settings
from dllm2rec.knowledge.schema import REMEDY, DamagedError, KnowledgeManifest, Labels, check_labels

_SIDECAR = re.compile(r"labels-(\d{6,})\.json")


class Sidecar(Settings):
    """What a sidecar says of its shard: number of rows, and SHA-256 of the Parquet file."""

    rows: int
    sha256: str


def table_file(path: Path, number: int) -> Path:
    """Return the Parquet file of shard ``number`` in the knowledge directory ``path``."""
    return path / f"labels-{number:06d}.parquet"


def sidecar_file(path: Path, number: int) -> Path:
    """Return the sidecar of shard ``number`` in the knowledge directory ``path``."""
    return path / f"labels-{number:06d}.json"


def shard_numbers(path: Path) -> list[int]:
    """List the shards that have a sidecar, in order."""
    matches = (_SIDECAR.fullmatch(file.name) for file in path.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def write_shard(path: Path, number: int, labels: Labels) -> None:
    """Write a shard: the table, then its sidecar, each whole or not at all.

    Raises:
        UserError: no space, no permission.
    """
    table = pl.DataFrame(
        {
            "example_id": labels.example_id.astype(np.int64, copy=False),
            "ranked_items": _lists(labels.ranked_items.astype(np.int32, copy=False)),
            "distances": _lists(labels.distances.astype(np.float32, copy=False)),
            "target_distance": labels.target_distance.astype(np.float32, copy=False),
            "generated_text": pl.Series(labels.generated_text, dtype=pl.String),
        }
    )
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    with atomic_path(table_file(path, number)) as target:
        target.write_bytes(buffer.getbuffer())
    sidecar = Sidecar(rows=len(labels), sha256=hash_file(table_file(path, number)))
    write_json(sidecar_file(path, number), sidecar.model_dump())


def read_shard(path: Path, number: int, manifest: KnowledgeManifest) -> Labels:
    """Read a shard and check it against its sidecar and the manifest.

    Raises:
        DamagedError: the shard is missing or cut, or its labels are unsound.
    """
    file = table_file(path, number)
    sidecar = _read_sidecar(sidecar_file(path, number))
    if not file.is_file():
        raise DamagedError(f"{file}: missing; {REMEDY}")
    if _hash(file) != sidecar.sha256:
        raise DamagedError(f"{file}: damaged or cut short (its hash is not the recorded one); {REMEDY}")
    labels = _read_table(file)
    if len(labels) != sidecar.rows:
        raise DamagedError(f"{file}: {len(labels)} rows, {sidecar.rows} recorded; {REMEDY}")
    check_labels(labels, manifest, file)
    return labels


def remove_shard(path: Path, number: int) -> None:
    """Remove a shard; its sidecar goes first, so that nobody reads a half-removed one."""
    sidecar_file(path, number).unlink(missing_ok=True)
    table_file(path, number).unlink(missing_ok=True)


def move_shard(path: Path, number: int, to: int) -> None:
    """Give a shard another number; dying in between loses at most this shard."""
    table_file(path, number).replace(table_file(path, to))
    sidecar_file(path, number).replace(sidecar_file(path, to))


def concatenate(parts: Sequence[Labels], depth: int) -> Labels:
    """Join labels of the given depth, in order of example."""
    parts = [Labels.empty(depth), *parts]
    ids = np.concatenate([part.example_id for part in parts])
    joined = Labels(
        example_id=ids,
        ranked_items=np.concatenate([part.ranked_items for part in parts]),
        distances=np.concatenate([part.distances for part in parts]),
        target_distance=np.concatenate([part.target_distance for part in parts]),
        generated_text=[text for part in parts for text in part.generated_text],
    )
    return joined if (np.diff(ids) >= 0).all() else joined.take(np.argsort(ids, kind="stable"))


def _lists(values: NDArray[np.int32] | NDArray[np.float32]) -> pl.Series:
    flat = pl.Series(values.ravel())
    return flat.reshape((-1, values.shape[1]))


def _hash(file: Path) -> str:
    try:
        return hash_file(file)
    except OSError as error:
        raise explain_os_error(error, file) from error


def _read_sidecar(file: Path) -> Sidecar:
    if not file.is_file():
        raise DamagedError(f"{file}: missing; {REMEDY}")
    try:
        return Sidecar.model_validate_json(file.read_bytes())
    except ValidationError:
        raise DamagedError(f"{file}: does not say rows and sha256; {REMEDY}") from None
    except OSError as error:
        raise explain_os_error(error, file) from error


def _read_table(file: Path) -> Labels:
    try:
        table = pl.read_parquet(file, glob=False)
        return Labels(
            example_id=table["example_id"].cast(pl.Int64).to_numpy(writable=True),
            ranked_items=table["ranked_items"].to_numpy(writable=True).astype(np.int32, copy=False),
            distances=table["distances"].to_numpy(writable=True).astype(np.float32, copy=False),
            target_distance=table["target_distance"].cast(pl.Float32).to_numpy(writable=True),
            generated_text=table["generated_text"].to_list(),
        )
    except (PolarsError, PanicException, ValueError) as error:
        raise DamagedError(f"{file}: not a shard of labels ({error}); {REMEDY}") from None

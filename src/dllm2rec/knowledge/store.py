"""The knowledge directory: a teacher writes it once, shard by shard, and students read it.

`manifest.json`, shards of labels (`shards.py`), `item_vectors.safetensors` (`[V, D_t]`) where the manifest announces
vectors, and texts (`texts.py`) where the teacher wrote some. A teacher that is killed at any moment loses at most the
shard in hand; started again, it resumes.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, explain_os_error, hash_json, require_fresh_directory, write_json
from dllm2rec.core.settings import differences
from dllm2rec.knowledge.schema import (
    FALLING,
    MARKER,
    REMEDY,
    DamagedError,
    KnowledgeManifest,
    Labels,
    check_distinct,
    check_labels,
    check_vectors,
    read_manifest,
)
from dllm2rec.knowledge.shards import (
    concatenate,
    move_shard,
    read_shard,
    remove_shard,
    shard_numbers,
    sidecar_file,
    table_file,
    write_shard,
)
from dllm2rec.knowledge.texts import TextKind, Texts, load_texts

__all__ = ["Knowledge", "KnowledgeManifest", "KnowledgeWriter", "Labels"]

VECTORS = "item_vectors.safetensors"
ROUNDING = 1e-5
ENOUGH_STEPS = 20
"""Steps along appended lists from which on they show whether distances fall."""
_KEY = "item_vectors"


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """A knowledge directory, read and checked.

    Attributes:
        path: the directory.
        manifest: what `manifest.json` says.
        labels: of all shards, ordered by `example_id`.
        item_vectors: `[V, D_t]` float32, or None where the manifest announces none.
        texts: of each kind that there is, their vectors of size D_t too.
    """

    path: Path
    manifest: KnowledgeManifest
    labels: Labels
    item_vectors: NDArray[np.float32] | None
    texts: Mapping[TextKind, Texts] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> "Knowledge":
        """Read a knowledge directory; every file is checked against what was recorded when it was written.

        Raises:
            UserError: not a knowledge directory, of another format version, or a file is missing, cut, or holds what
                no label may hold; the message names the file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        numbers = shard_numbers(path)
        missing = sorted(set(range(len(numbers))) - set(numbers))
        if missing:
            raise DamagedError(f"{sidecar_file(path, missing[0])}: missing (there are later shards); {REMEDY}")
        parts = [read_shard(path, number, manifest) for number in numbers]
        labels = concatenate(parts, manifest.depth)
        check_distinct(labels.example_id, path)
        vectors = None if manifest.vector_size is None else _read_vectors(path / VECTORS, manifest)
        texts = load_texts(path, manifest.vector_size)
        return cls(path=path, manifest=manifest, labels=labels, item_vectors=vectors, texts=texts)

    @cached_property
    def content_hash(self) -> str:
        """Name of the content, 16 hexadecimal digits; how the labels are cut into shards does not matter."""
        digest = hashlib.blake2b(hash_json(self.manifest.model_dump(mode="json")).encode())
        labels = self.labels
        for array in (labels.example_id, labels.ranked_items, labels.distances, labels.target_distance):
            digest.update(np.ascontiguousarray(array).data)
        digest.update("\x00".join(labels.generated_text).encode())
        self._update(digest)
        return digest.hexdigest()[:16]

    @cached_property
    def read_hash(self) -> str:
        """Name of what a trained student goes on reading, item vectors and texts, and of who gave them."""
        digest = hashlib.blake2b(hash_json(self.manifest.model_dump(mode="json")).encode())
        self._update(digest)
        return digest.hexdigest()[:16]

    def _update(self, digest: "hashlib.blake2b") -> None:
        if self.item_vectors is not None:
            digest.update(np.ascontiguousarray(self.item_vectors).data)
        for kind, texts in self.texts.items():
            digest.update(f"{kind}\x00".encode() + "\x00".join(texts.text).encode())
            digest.update(texts.key.data)
            digest.update(np.ascontiguousarray(texts.vectors).data)


class KnowledgeWriter:
    """Writes a knowledge directory; the directory that an interrupted writer left is continued.

    Shards that are damaged or half-written are removed, so that their examples are labelled again. Item vectors are
    best written before the first labels: `Knowledge.load` refuses a directory without the vectors it announces.

    Args:
        path: the directory; created when absent.
        manifest: of the knowledge to be written.

    Raises:
        UserError: ``path`` holds something else, or knowledge with another manifest (the fields that differ are named).
    """

    def __init__(self, path: Path, manifest: KnowledgeManifest) -> None:
        if manifest.depth > manifest.num_items:
            raise UserError(f"depth {manifest.depth} exceeds the catalogue of {manifest.num_items} items; lower it")
        self.path = path
        self.manifest = manifest
        _remove_leftovers(path)
        require_fresh_directory(path, marker=MARKER)
        if (path / MARKER).exists():
            _require_equal(path, manifest)
        else:
            write_json(path / MARKER, manifest.model_dump(mode="json"))
        self._shards, self._labelled = _keep_sound_shards(path, manifest)

    def labelled_ids(self) -> NDArray[np.int64]:
        """Return the examples that have a label, `[N]`, sorted."""
        return self._labelled.copy()

    def append(self, labels: Labels) -> None:
        """Write labels as one more shard; no labels, no shard.

        Raises:
            UserError: the labels are unsound, an example has a label already, or the disk refuses.
        """
        if len(labels) == 0:
            return
        check_labels(labels, self.manifest, self.path, remedy="none of these labels was written")
        steps = np.diff(labels.distances, axis=1)
        falls = steps < -ROUNDING * (1 + np.abs(labels.distances[:, 1:]))
        if steps.size >= ENOUGH_STEPS and falls.mean() > FALLING:
            raise UserError(
                f"{self.path}: the distances of these labels fall along their lists; the best item comes first and has "
                "the smallest distance (of scores, where large is good, the negative)"
            )
        labelled = _with_new(self._labelled, labels.example_id, table_file(self.path, self._shards))
        write_shard(self.path, self._shards, labels)
        self._shards += 1
        self._labelled = labelled

    def has_item_vectors(self) -> bool:
        """Tell whether sound item vectors are there."""
        try:
            _read_vectors(self.path / VECTORS, self.manifest)
        except DamagedError:
            return False
        return True

    def write_item_vectors(self, vectors: NDArray[np.float32]) -> None:
        """Write the item vectors, `[V, D_t]`, replacing those that are there.

        Raises:
            UserError: wrong shape, not finite, or the disk refuses.
        """
        file = self.path / VECTORS
        check_vectors(vectors, self.manifest, file)
        with atomic_path(file) as target:
            target.write_bytes(save_tensors({_KEY: np.ascontiguousarray(vectors, np.float32)}))


def _read_vectors(file: Path, manifest: KnowledgeManifest) -> NDArray[np.float32]:
    if not file.is_file():
        raise DamagedError(f"{file}: missing; {REMEDY}")
    try:
        vectors = load_tensors(file.read_bytes())[_KEY].astype(np.float32, copy=False)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedError(f"{file}: damaged or not item vectors ({error}); {REMEDY}") from None
    except OSError as error:
        raise explain_os_error(error, file) from error
    check_vectors(vectors, manifest, file)
    return vectors


def _require_equal(path: Path, manifest: KnowledgeManifest) -> None:
    different = differences(read_manifest(path).model_dump(mode="json"), manifest.model_dump(mode="json"))
    if different:
        raise UserError(
            f"{path}: holds other knowledge ({different}); choose another --out, remove it, or ask for the same"
        )


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed writer left in the middle of an atomic write."""
    for name in (MARKER, VECTORS, "labels-*", "texts-*"):
        for left in path.glob(f".{name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)


def _keep_sound_shards(path: Path, manifest: KnowledgeManifest) -> tuple[int, NDArray[np.int64]]:
    """Remove unsound shards and shards without a sidecar, number the rest anew; says how many, and whose labels."""
    kept, labelled = 0, np.empty(0, np.int64)
    for number in shard_numbers(path):
        try:
            labels = read_shard(path, number, manifest)
            labelled = _with_new(labelled, labels.example_id, path)
        except DamagedError:
            remove_shard(path, number)
            continue
        if number != kept:
            move_shard(path, number, kept)
        kept += 1
    sound = {table_file(path, number) for number in range(kept)}
    for file in path.glob("labels-*.parquet"):
        if file not in sound:
            file.unlink()
    return kept, labelled


def _with_new(labelled: NDArray[np.int64], new: NDArray[np.int64], where: Path) -> NDArray[np.int64]:
    """Add examples to sorted ones, `[N]`, and keep them sorted, in time that grows with N, not with its sorting.

    Raises:
        DamagedError: one is there twice.
    """
    new = np.sort(new)
    place = np.searchsorted(labelled, new)
    there = labelled[np.minimum(place, len(labelled) - 1)] == new if len(labelled) else np.zeros(len(new), bool)
    check_distinct(np.concatenate([new, new[there]]), where)
    return np.insert(labelled, place, new)

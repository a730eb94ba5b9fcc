"""What knowledge says: the manifest of a knowledge directory and the labels in it, with their checks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError

from dllm2rec.core.errors import UserError, first_problem
from dllm2rec.core.files import read_versioned
from dllm2rec.core.settings import Settings

FORMAT_VERSION = 1
MARKER = "manifest.json"
REMEDY = "run `dllm2rec teach` again with the same --out; it resumes"


FALLING = 0.5
"""Share of the steps along lists above which distances fall: then they are no distances, but scores."""


class DamagedError(UserError):
    """A file of a knowledge directory is missing, cut, or holds what no label may hold."""


class KnowledgeManifest(Settings):
    """Who labelled what, and how: what `manifest.json` says.

    Attributes:
        format_version: of the directory.
        dataset_hash: content hash of the dataset that was labelled; labels of another one are refused.
        num_items: V of that dataset.
        teacher: kind of the teacher, such as "bigrec", "encoder" or "knn".
        model: name of its model; empty where it has none.
        revision: exact version of the model, such as a commit or a file hash; empty where it has none.
        seed: of everything random in the teacher.
        settings: of the teacher, as JSON.
        depth: items listed per example, K; 0 means item vectors only.
        vector_size: D_t of the item vectors; None means that there are none.
    """

    format_version: int = FORMAT_VERSION
    dataset_hash: str
    num_items: int = Field(ge=1)
    teacher: str
    model: str = ""
    revision: str = ""
    seed: int = 0
    settings: dict[str, JsonValue] = Field(default={})
    depth: int = Field(ge=0)
    vector_size: int | None = Field(default=None, ge=1)

    @property
    def name(self) -> str:
        """The teacher and its model, for people."""
        return f"{self.teacher} ({self.model})" if self.model else self.teacher


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a teacher says about N examples, aligned by row; for each, K items from the most likely on.

    Attributes:
        example_id: `[N]` int64, distinct.
        ranked_items: `[N, K]` int32, distinct within a row.
        distances: `[N, K]` float32, of each listed item; smaller is more likely.
        target_distance: `[N]` float32, of the item that really came next.
        generated_text: N texts that the teacher wrote; empty where it writes none.
    """

    example_id: NDArray[np.int64]
    ranked_items: NDArray[np.int32]
    distances: NDArray[np.float32]
    target_distance: NDArray[np.float32]
    generated_text: list[str]

    def __len__(self) -> int:
        return len(self.example_id)

    @classmethod
    def empty(cls, depth: int) -> "Labels":
        """Return no labels, of the given depth."""
        return cls(
            example_id=np.empty(0, np.int64),
            ranked_items=np.empty((0, depth), np.int32),
            distances=np.empty((0, depth), np.float32),
            target_distance=np.empty(0, np.float32),
            generated_text=[],
        )

    def take(self, rows: NDArray[np.integer]) -> "Labels":
        """Return the labels at ``rows``, in that order."""
        return Labels(
            example_id=self.example_id[rows],
            ranked_items=self.ranked_items[rows],
            distances=self.distances[rows],
            target_distance=self.target_distance[rows],
            generated_text=[self.generated_text[row] for row in rows],
        )


def read_manifest(path: Path) -> KnowledgeManifest:
    """Read the manifest of the knowledge directory at ``path``.

    Raises:
        UserError: not a knowledge directory, or one of another format version.
    """
    file = path / MARKER
    if not file.is_file():
        raise UserError(f"{path}: not a knowledge directory (no {MARKER} in it); make one with `dllm2rec teach`")
    value = read_versioned(file, FORMAT_VERSION, remedy="remove it and teach again")
    try:
        return KnowledgeManifest.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}; remove {path} and teach again") from None


def check_labels(labels: Labels, manifest: KnowledgeManifest, where: Path, *, remedy: str = REMEDY) -> None:
    """Check that labels are what ``manifest`` promises.

    Args:
        labels: to be checked.
        manifest: gives V and K.
        where: the file that the labels come from, or the directory that they go to, for the message.
        remedy: what to do, for the message.

    Raises:
        DamagedError: wrong shape or type, an item out of range or listed twice, a distance that is not finite, an
            example twice.
    """
    rows, depth = len(labels), manifest.depth
    shapes = {"ranked_items": (rows, depth), "distances": (rows, depth), "target_distance": (rows,)}
    for name, shape in shapes.items():
        if (found := getattr(labels, name).shape) != shape:
            raise DamagedError(f"{where}: {name} has shape {list(found)}, not {list(shape)}; {remedy}")
    if len(labels.generated_text) != rows:
        raise DamagedError(f"{where}: {len(labels.generated_text)} generated texts for {rows} examples; {remedy}")
    items = labels.ranked_items
    ordered = np.sort(items, axis=1)
    for bad, what in (
        ((items < 0) | (items >= manifest.num_items), f"an item outside 0..{manifest.num_items - 1}"),
        (ordered[:, 1:] == ordered[:, :-1], "an item that is listed twice"),
        (~np.isfinite(labels.distances), "a distance that is not finite"),
        (~np.isfinite(labels.target_distance)[:, None], "a target distance that is not finite"),
    ):
        if (found := bad.any(axis=1)).any():
            first = labels.example_id[np.argmax(found)]
            raise DamagedError(f"{where}: {found.sum()} rows hold {what} (first: example {first}); {remedy}")
    check_distinct(labels.example_id, where)


def check_distinct(example_id: NDArray[np.int64], where: Path) -> None:
    """Check that no example is labelled twice.

    Raises:
        DamagedError: names the first that is.
    """
    ordered = np.sort(example_id)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise DamagedError(f"{where}: example {twice[0]} is labelled twice; remove one of the shards, or {REMEDY}")


def check_vectors(vectors: NDArray[np.float32], manifest: KnowledgeManifest, where: Path) -> None:
    """Check that item vectors are what ``manifest`` promises.

    Raises:
        DamagedError: wrong shape, or a value that is not finite (the item is named).
    """
    shape = (manifest.num_items, manifest.vector_size)
    if vectors.shape != shape:
        raise DamagedError(f"{where}: shape {list(vectors.shape)}, not {list(shape)} (items, vector size); {REMEDY}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DamagedError(
            f"{where}: {len(bad)} of {len(vectors)} item vectors are not finite (first: item {bad[0]}); "
            "remove this file and teach again"
        )

"""The bundle: a directory with everything that serving needs, and nothing else.

`bundle.json` names the format, the student and the SHA-256 of every other file; `items.json` has the external ids and
titles in the order of the catalogue; `table.safetensors` the folded item vectors, packed or not (`packing.py`);
`encoder.onnx` the encoder, from item vectors to a sequence vector; `examples.json` a few histories of real users, with
what came next, to look at; `text.safetensors`, if the output is tied to text, how a text vector becomes an item vector;
`neighbours.safetensors`, if items that stood near each other are counted, how often they did; `index.usearch`, if it
was asked for, an approximate index; `README.md` is a card for people. Nothing is pickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import explain_os_error, hash_file, read_json, read_versioned
from dllm2rec.serving.manifest import FORMAT_VERSION, BundleManifest
from dllm2rec.serving.neighbours import Neighbours
from dllm2rec.serving.packing import unpack

MARKER = "bundle.json"
ITEMS = "items.json"
TABLE = "table.safetensors"
ENCODER = "encoder.onnx"
CARD = "README.md"
EXAMPLES = "examples.json"
TEXT = "text.safetensors"
INDEX = "index.usearch"
NEIGHBOURS = "neighbours.safetensors"
FILES = (ITEMS, TABLE, ENCODER, CARD, EXAMPLES)

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle, read and checked.

    Attributes:
        path: the directory.
        manifest: what `bundle.json` says.
        version: twelve digits of its hash.
        ids: V external ids.
        titles: V titles.
        input: `[V, D]`, the vectors that histories are made of.
        output: `[V, D]`, the vectors that scores are made of; where the student ties them it is ``input`` itself.
        bias: `[V]`, added to the scores, or None.
        popularity: `[V]`, how often each item was chosen in training.
        examples: histories of real users, ids, with what came next and what a teacher wrote.
        neighbours: what stood near each item in training, where that is counted, or None.
    """

    path: Path
    manifest: BundleManifest
    version: str
    ids: list[str | int]
    titles: list[str]
    input: Floats
    output: Floats
    bias: Floats | None
    popularity: Floats
    examples: list[dict[str, Any]]
    neighbours: Neighbours | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is the item-kNN baseline, and not a trained student."""
        return "reference" in self.manifest.settings

    @property
    def has_index(self) -> bool:
        """Whether there is an approximate index."""
        return INDEX in self.manifest.files

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read a bundle; every file is compared with its hash.

        Raises:
            UserError: it is no bundle, of another format version, or a file is missing, cut, altered or not to be read;
                names the file.
        """
        try:
            return cls._load(path)
        except OSError as error:
            raise UserError(f"{error.filename or path}: can't be read ({error.strerror or error})") from None

    @classmethod
    def _load(cls, path: Path) -> "Bundle":
        version = version_of(path)
        manifest = _read_manifest(path)
        for name, digest in manifest.files.items():
            if not (path / name).is_file():
                raise UserError(f"{path / name}: missing; export the bundle again")
            if hash_file(path / name) != digest:
                raise UserError(f"{path / name}: cut or altered since the export; export the bundle again")
        items = read_json(path / ITEMS)
        try:
            table = load_file(path / TABLE)
        except SafetensorError as error:
            raise UserError(f"{path / TABLE}: damaged ({error}); export the bundle again") from None
        return cls(
            path=path,
            manifest=manifest,
            version=version,
            ids=[item[0] for item in items],
            titles=[item[1] for item in items],
            input=(given := unpack(table, "input")),
            output=unpack(table, "output") if "output" in table else given,
            bias=table.get("bias"),
            popularity=table["popularity"],
            examples=read_json(path / EXAMPLES),
            neighbours=_neighbours(path, manifest),
        )


def version_of(path: Path) -> str:
    """Return the version of the bundle that lies at a path now; it changes with any of its files.

    Raises:
        UserError: it is no bundle, or can't be read.
    """
    try:
        return hash_file(path / MARKER)[:12]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: not a bundle (no {MARKER} in it); make one with `dllm2rec export`") from None
    except OSError as error:
        raise explain_os_error(error, path / MARKER) from error


def _neighbours(path: Path, manifest: BundleManifest) -> Neighbours | None:
    if manifest.neighbours_decay is None:
        return None
    try:
        return Neighbours.load(path / NEIGHBOURS, decay=manifest.neighbours_decay)
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path / NEIGHBOURS}: damaged ({error}); export the bundle again") from None


def _read_manifest(path: Path) -> BundleManifest:
    remedy = "export it again, or install the version that it was made with"
    values = read_versioned(path / MARKER, FORMAT_VERSION, remedy=remedy)
    manifest = BundleManifest.parse(values, path / MARKER)
    unnamed = [name for name in FILES if name not in manifest.files]
    if unnamed:
        raise UserError(f"{path / MARKER}: names no hash of {unnamed[0]}; export the bundle again")
    return manifest

"""The bundle: a directory with everything that serving needs, and nothing else.

`bundle.json` names the format, the student and the SHA-256 of every other file; `items.json` has the external ids and
titles in the order of the catalogue; `table.safetensors` the folded item vectors; `encoder.onnx` the encoder, from item
vectors to a sequence vector; `examples.json` a few histories of real users, with what came next, to look at;
`text.safetensors`, if the output is tied to text, how a text vector becomes an item vector; `README.md` is a card for
people. Nothing is pickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_file, read_json

FORMAT_VERSION = 1
MARKER = "bundle.json"
ITEMS = "items.json"
TABLE = "table.safetensors"
ENCODER = "encoder.onnx"
CARD = "README.md"
EXAMPLES = "examples.json"
TEXT = "text.safetensors"
FILES = (ITEMS, TABLE, ENCODER, CARD, EXAMPLES)
OPSET = 18

Floats = NDArray[np.float32]


class TextSource(BaseModel):
    """Where the text vectors of a student came from.

    Attributes:
        model: name of the encoder, or None where the knowledge did not say.
        weight: of the projected text beside the offset, ``w_e``.
        probes: rows of items whose text vectors are kept, to know the encoder again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None
    weight: float
    probes: list[int]


class BundleManifest(BaseModel):
    """What `bundle.json` says.

    Attributes:
        format_version: of the directory.
        student: what was exported, for people.
        num_items: V.
        dim: D.
        history: the most items of a history that the encoder reads, L.
        dataset: name and content hash of what it was trained on.
        metrics: on the test examples, as far as they were measured.
        settings: of the run.
        software: versions that the run was made with.
        opset: of the ONNX file.
        text: of a student whose output is tied to text, so that new items can be added; None for others.
        files: SHA-256 of every other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    student: str
    num_items: PositiveInt
    dim: PositiveInt
    history: PositiveInt
    dataset: dict[str, str]
    metrics: dict[str, float]
    settings: dict[str, Any]
    software: dict[str, str]
    opset: int = OPSET
    text: TextSource | None = None
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle, read and checked.

    Attributes:
        path: the directory.
        manifest: what `bundle.json` says.
        ids: V external ids.
        titles: V titles.
        input: `[V, D]`, the vectors that histories are made of.
        output: `[V, D]`, the vectors that scores are made of; where the student ties them it is ``input`` itself.
        bias: `[V]`, added to the scores, or None.
        popularity: `[V]`, how often each item was chosen in training.
    """

    path: Path
    manifest: BundleManifest
    ids: list[str | int]
    titles: list[str]
    input: Floats
    output: Floats
    bias: Floats | None
    popularity: Floats

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read a bundle; every file is compared with its hash.

        Raises:
            UserError: it is no bundle, of another format version, or a file is missing, cut or altered; names the file.
        """
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
            ids=[item[0] for item in items],
            titles=[item[1] for item in items],
            input=table["input"],
            output=table.get("output", table["input"]),
            bias=table.get("bias"),
            popularity=table["popularity"],
        )


def _read_manifest(path: Path) -> BundleManifest:
    if not (path / MARKER).is_file():
        raise UserError(f"{path}: not a bundle (no {MARKER} in it); make one with `dllm2rec export`")
    values = read_json(path / MARKER)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: bundle of format version {version!r}, this program reads {FORMAT_VERSION}; "
            "export it again, or install the version that it was made with"
        )
    try:
        manifest = BundleManifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path / MARKER}: {field}: {first['msg']}; export the bundle again") from None
    unnamed = [name for name in FILES if name not in manifest.files]
    if unnamed:
        raise UserError(f"{path / MARKER}: names no hash of {unnamed[0]}; export the bundle again")
    return manifest

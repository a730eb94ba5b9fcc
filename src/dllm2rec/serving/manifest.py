"""What `bundle.json` says. Plain classes: a library that checks models takes longer to import than serving may."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dllm2rec.core.errors import UserError
from dllm2rec.serving.packing import Precision

FORMAT_VERSION = 1
OPSET = 18


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Where the text vectors of a student, or of counting, came from.

    Attributes:
        model: name of the encoder, or None where the knowledge did not say.
        weight: of the projected text beside the offset, ``w_e``.
        probes: rows of items whose text vectors are kept, to know the encoder again.
        bias: what is added to the score of an item that training never saw.
    """

    model: str | None
    weight: float
    probes: list[int]
    bias: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """What `bundle.json` says.

    Attributes:
        format_version: of the directory.
        student: what was exported, for people.
        num_items: V.
        added: how many of them `add-items` added, which `metrics` knows nothing of.
        dim: length of an item's vector as the table has it, its text's direction included.
        history: the most items of a history that the encoder reads, L.
        dataset: name and content hash of what it was trained on.
        columns: names of the columns of its log, as far as they were given, see `dllm2rec.data.Columns`.
        metrics: on the test examples, as far as they were measured.
        settings: of the run.
        software: versions that the run was made with.
        opset: of the ONNX file.
        precision: of the item vectors on disk.
        again: what the items of a history get on top of their scores.
        ever: whether all of them do, and not only the newest `history`.
        neighbours_decay: of a history item's weight, a step of age, where neighbours are counted; None where none are.
        text: where titles are read, so that new items can be added; None where they are not.
        files: SHA-256 of every other file.
    """

    format_version: int = FORMAT_VERSION
    student: str
    num_items: int
    dim: int
    history: int
    dataset: dict[str, str]
    columns: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float]
    settings: dict[str, Any]
    software: dict[str, str]
    opset: int = OPSET
    precision: Precision = "float32"
    again: float = 0.0
    ever: bool = False
    neighbours_decay: float | None = None
    added: int = 0
    text: TextSource | None = None
    files: dict[str, str]

    def to_json(self) -> str:
        """Return the text of `bundle.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, values: Mapping[str, Any], file: Path) -> "BundleManifest":
        """Check what was read.

        Raises:
            UserError: a value is missing, unknown or of a wrong kind; names it and ``file``.
        """
        checked = _checked(cls, values, _CHECKS, file)
        if checked.get("text") is not None:
            checked["text"] = TextSource(**_checked(TextSource, checked["text"], _TEXT_CHECKS, file, "text."))
        return cls(**checked)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _maps_to(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format_version": (_is_count, "a version"),
    "student": (_is_text, "text"),
    "num_items": (_is_count, "a count"),
    "dim": (_is_count, "a count"),
    "history": (_is_count, "a count"),
    "dataset": (_maps_to(_is_text), "names and texts"),
    "columns": (_maps_to(_is_text), "names of columns"),
    "metrics": (_maps_to(_is_number), "names and numbers"),
    "settings": (_maps_to(lambda _: True), "settings"),
    "software": (_maps_to(_is_text), "names and versions"),
    "opset": (_is_count, "a version"),
    "precision": (lambda value: value in {"float32", "float16", "int8"}, "float32, float16 or int8"),
    "again": (_is_number, "a number"),
    "ever": (lambda value: isinstance(value, bool), "true or false"),
    "neighbours_decay": (lambda value: value is None or _is_number(value), "a number"),
    "added": (lambda value: value == 0 or _is_count(value), "a count"),
    "text": (lambda value: value is None or isinstance(value, dict), "a description of text vectors"),
    "files": (_maps_to(_is_text), "names and hashes"),
}
_TEXT_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (lambda value: value is None or _is_text(value), "a name"),
    "weight": (_is_number, "a number"),
    "bias": (_is_number, "a number"),
    "probes": (lambda value: isinstance(value, list) and all(isinstance(row, int) for row in value), "rows"),
}


def _checked(
    model: type,
    values: Mapping[str, Any],
    checks: Mapping[str, tuple[Callable[[Any], bool], str]],
    file: Path,
    prefix: str = "",
) -> dict[str, Any]:
    def wrong(name: str, problem: str) -> UserError:
        return UserError(f"{file}: {prefix}{name}: {problem}; export the bundle again")

    needed = {one.name for one in fields(model) if one.default is MISSING and one.default_factory is MISSING}
    for name in sorted(values.keys() - checks.keys()):
        raise wrong(name, "not known")
    for name in sorted(needed - values.keys()):
        raise wrong(name, "missing")
    for name, value in values.items():
        is_right, kind = checks[name]
        if not is_right(value):
            raise wrong(name, f"{value!r} is not {kind}")
    return dict(values)

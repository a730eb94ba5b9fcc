"""What lies beside labels: that they are finished, and what they cost. Needs no library of a language model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from dllm2rec.core.files import hash_json, read_json
from dllm2rec.data import Dataset
from dllm2rec.knowledge.schema import DamagedError
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.merging import MERGED

DONE = "taught.json"
TIMING = "labelling.json"


def request(dataset: Dataset, teacher: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Describe what a teacher is asked for: its settings, with all defaults, and the dataset.

    Knowledge that is merged is described by its content, wherever it lies.

    Raises:
        UserError: there is no sound knowledge where some is to be merged.
    """
    teacher = dict(teacher)
    if teacher["kind"] == MERGED:
        teacher["sources"] = [_content(source) for source in teacher["sources"]]
    return {"dataset": dataset.content_hash, "teacher": teacher}


def directory_name(asked: Mapping[str, JsonValue]) -> str:
    """Name the directory of what was asked for, where nobody else does."""
    return f"knowledge-{hash_json(asked)[:8]}"


def finished(out: Path, asked: Mapping[str, JsonValue]) -> Knowledge | None:
    """Return the knowledge at ``out`` if exactly this was asked for before, was finished, and is still sound."""
    if not (out / DONE).is_file() or read_json(out / DONE) != asked:
        return None
    try:
        return Knowledge.load(out)
    except DamagedError:
        return None


def seconds_per_1000(knowledge: Knowledge) -> float | None:
    """Return the seconds that the teacher took for 1,000 labels, as measured while it labelled."""
    timing = _read(knowledge)
    examples = timing.get("examples", 0)
    return 1000 * timing["seconds"] / examples if examples else None


def unfinished_texts(knowledge: Knowledge) -> int:
    """Return how many of the teacher's texts came to no end within the limit of tokens."""
    return len(_read(knowledge).get("unfinished", []))


def _content(source: Mapping[str, Any]) -> dict[str, JsonValue]:
    if source["kind"] != "knowledge":
        return dict(source)
    return {"kind": "knowledge", "hash": Knowledge.load(Path(source["path"])).content_hash}


def _read(knowledge: Knowledge) -> dict[str, Any]:
    file = knowledge.path / TIMING
    timing: dict[str, Any] = read_json(file) if file.is_file() else {}
    return timing

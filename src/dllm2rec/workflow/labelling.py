"""What lies beside labels: that they are finished, and what they cost. Needs no library of a language model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import fingerprint, hash_json, read_json, write_json
from dllm2rec.data import Dataset
from dllm2rec.knowledge.schema import DamagedError
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.teachers.cost import noted
from dllm2rec.teachers.merging import MERGED
from dllm2rec.teachers.packaged import ENCODERS, PACKAGED

DONE = "taught.json"


def request(dataset: Dataset, teacher: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Describe what a teacher is asked for: the dataset, and all its settings on which labels depend.

    Knowledge that it reads (`vectors`, and what is merged) is described by its content, wherever it lies, and a model
    on disk by its content, too.

    Raises:
        UserError: there is no sound knowledge where some is to be read.
    """
    return {"dataset": dataset.content_hash, "teacher": _by_content(teacher)}


def directory_name(asked: Mapping[str, JsonValue]) -> str:
    """Name the directory of what was asked for, where nobody else does."""
    return f"knowledge-{hash_json(asked)[:8]}"


def finished(out: Path, asked: Mapping[str, JsonValue]) -> Knowledge | None:
    """Return the knowledge at ``out`` if exactly this was asked for before, was finished, and is still sound."""
    if not (out / DONE).is_file():
        return None
    there = read_json(out / DONE)
    if {name: there.get(name) for name in asked} != asked:
        return None
    try:
        return Knowledge.load(out)
    except DamagedError:
        return None


def finish(
    out: Path, asked: Mapping[str, JsonValue], teacher: Mapping[str, JsonValue], *, encoder: str | None = None
) -> None:
    """Write down that what was asked for is finished.

    Args:
        out: the knowledge directory.
        asked: from `request`.
        teacher: its settings, whose paths ``asked`` lacks.
        encoder: that made the item vectors which were taken from other knowledge, where that says it.
    """
    write_json(out / DONE, {**asked, "settings": dict(teacher)} | ({} if encoder is None else {"encoder": encoder}))


def taught_by(knowledge: Knowledge, dataset: Dataset) -> tuple[dict[str, Any], dict[str, JsonValue]]:
    """Return the settings of the teacher, and how it is described in a request.

    Args:
        knowledge: that it made.
        dataset: that it is to go on with.

    Raises:
        UserError: nothing there says who taught.
    """
    if knowledge.manifest.teacher == "imported":
        raise UserError(
            f"{knowledge.path}: was imported, so there is no teacher here that could go on; ask about what is new "
            f"(`dllm2rec ask {dataset.path} --out QUESTIONS.jsonl`), import the answers beside those that you have "
            f"(`dllm2rec teach {dataset.path} --import ANSWERS --out KNOWLEDGE`, once for each file), and `update` "
            "with --knowledge KNOWLEDGE"
        )
    if not (knowledge.path / DONE).is_file():
        raise UserError(f"{knowledge.path}: does not say who taught it (no {DONE}); make it with `dllm2rec teach`")
    there = read_json(knowledge.path / DONE)
    return there["settings"], there["teacher"]


def encoder_of(knowledge: Knowledge) -> str | None:
    """Name the encoder that made the item vectors, where the knowledge says it."""
    if knowledge.manifest.teacher == "encoder":
        return knowledge.manifest.model
    if knowledge.manifest.teacher == "imported":
        imported: dict[str, Any] = knowledge.manifest.settings
        return imported.get("model")
    there = read_json(knowledge.path / DONE) if (knowledge.path / DONE).is_file() else {}
    settings = there.get("settings", {})
    made = settings.get("kind") == "reference" and settings.get("vectors") is None
    model: str | None = settings.get("model") if made else there.get("encoder")
    return model


def seconds_per_1000(knowledge: Knowledge) -> float | None:
    """Return the seconds that the teacher took for 1,000 labels, as measured while it labelled."""
    timing = noted(knowledge.path)
    examples = timing.get("examples", 0)
    return 1000 * timing["seconds"] / examples if examples else None


def unfinished_texts(knowledge: Knowledge) -> int:
    """Return how many of the teacher's texts came to no end within the limit of tokens."""
    return len(noted(knowledge.path).get("unfinished", []))


def _by_content(teacher: Mapping[str, Any]) -> dict[str, JsonValue]:
    if teacher["kind"] == "knowledge":
        return {"kind": "knowledge", "hash": _content_hash(teacher["path"])}
    if teacher["kind"] == MERGED:
        return {**teacher, "sources": [_by_content(source) for source in teacher["sources"]]}
    described = {name: value for name, value in teacher.items() if name not in ("shard_size", "batch_size")}
    if teacher.get("vectors") is not None:
        described["vectors"] = {"hash": _content_hash(teacher["vectors"])}
    for model in ("llm", "model"):
        name = teacher.get(model)
        if (
            name is not None
            and name not in PACKAGED.keys() | ENCODERS.keys()
            and (path := Path(name).expanduser()).exists()
        ):
            described[model] = {"fingerprint": fingerprint(path)}
    return described


def _content_hash(path: str) -> str:
    return Knowledge.load(Path(path)).content_hash

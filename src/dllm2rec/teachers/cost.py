"""What labelling took, added up beside the labels; a run that goes on adds to it."""

from pathlib import Path
from typing import Any

from dllm2rec.core.files import read_json, write_json

TIMING = "labelling.json"


def note(folder: Path, examples: int, seconds: float, unfinished: list[int]) -> None:
    """Add up what was labelled and how long it took, and which texts came to no end."""
    before = noted(folder)
    value = {
        "examples": before.get("examples", 0) + examples,
        "seconds": round(before.get("seconds", 0.0) + seconds, 3),
        "unfinished": before.get("unfinished", []) + unfinished,
    }
    write_json(folder / TIMING, value)


def noted(folder: Path) -> dict[str, Any]:
    """Return what was noted, an empty dictionary where nothing was."""
    file = folder / TIMING
    known: dict[str, Any] = read_json(file) if file.is_file() else {}
    return known

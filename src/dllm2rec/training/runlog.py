"""`metrics.jsonl`: a line an epoch."""

import json
from pathlib import Path
from typing import Any

from dllm2rec.core.files import atomic_path

FILE = "metrics.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run, oldest first; a line that was cut by a kill ends the log."""
    file = run / FILE
    lines: list[dict[str, Any]] = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def append_log(run: Path, line: dict[str, Any]) -> None:
    """Add the line of an epoch."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / FILE).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line, allow_nan=False) + "\n")


def cut_log(run: Path, epoch: int) -> list[dict[str, Any]]:
    """Drop the lines beyond ``epoch``, which a resumed run will write again, and return the rest."""
    kept = [line for line in read_log(run) if line["epoch"] <= epoch]
    with atomic_path(run / FILE) as target:
        target.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    return kept

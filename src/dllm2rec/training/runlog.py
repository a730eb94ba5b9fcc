"""`metrics.jsonl`: a line an epoch."""

import json
from pathlib import Path
from typing import Any

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path

FILE = "metrics.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run, oldest first.

    Raises:
        UserError: a line is damaged.
    """
    file = run / FILE
    try:
        return [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    except ValueError as error:
        raise UserError(f"{file}: damaged ({error}); remove it: it holds no more than the curves of reports") from None


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write the lines of the epochs that the checkpoint knows; a run that resumes adds the others again."""
    with atomic_path(run / FILE) as target:
        target.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")

"""A small log with a pattern in it, and the program run in this process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from dllm2rec.cli.main import app

USERS, ITEMS, EVENTS = 40, 30, 14
SMALL_TEACHER = [
    *("--set", "tuning.examples=8", "--set", "tuning.validation_examples=4", "--set", "tuning.epochs=1"),
    *("--set", "tuning.batch_size=4", "--set", "tuning.micro_batch_size=4", "--set", "title_tokens=8"),
    *("--set", "depth=25", "--set", "shard_size=100"),
]
SMALL_PAPER = [
    "--protocol",
    "paper",
    "--set",
    "student.dim=8",
    "--set",
    "training.epochs=2",
    "--set",
    "training.batch_size=64",
]
SMALL_TRAINING = ["--set", "training.epochs=3", "--set", "training.batch_size=64", "--set", "student.dim=16"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: object) -> Outcome:
    """Run ``dllm2rec`` with these arguments."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Outcome(result.exit_code, result.stdout, result.stderr)


def refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    """Check that the user was told in one line, with all of ``words``, and nothing else happened."""
    assert outcome.code == code, (outcome.out, outcome.err)
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    lines = outcome.err.strip().splitlines()
    errors = [line for line in lines if line.startswith(("error: ", "refused: "))]
    assert len(errors) == 1, outcome.err
    assert lines[-1] == errors[0]
    for word in words:
        assert word in errors[0], (word, errors[0])


def log_rows() -> list[tuple[str, int, int]]:
    """Users walk around a circle of items, a step at a time and now and then a leap."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        item = int(rng.integers(ITEMS))
        for event in range(EVENTS):
            item = (item + (1 if rng.random() < 0.8 else int(rng.integers(ITEMS)))) % ITEMS
            rows.append((f"u{user}", item, 1_000_000 + 1000 * event + user))
    return rows


def item_titles() -> list[str]:
    """One title an item; the first needs escaping in HTML."""
    return ["Dogs & <b>cats</b>", *(f"Title {n} of the {'red' if n % 2 else 'blue'} things" for n in range(1, ITEMS))]


def write_log(folder: Path, rows: list[tuple[Any, Any, Any]], items: list[tuple[Any, Any]] | None = None) -> list[str]:
    """Write a log as two CSV files and return the arguments that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    if items is None:
        items = list(enumerate(item_titles()))
    interactions, catalogue = folder / "log.csv", folder / "items.csv"
    interactions.write_text("user,item,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows))
    catalogue.write_text("item,title\n" + "".join(f"{item},{title}\n" for item, title in items))
    return ["--interactions", str(interactions), "--items", str(catalogue)]

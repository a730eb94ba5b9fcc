"""What a softmax leaves out is decided by how often, and how late, people choose an item again."""

import json
from pathlib import Path

import pytest
from cli_helpers import SMALL_TRAINING, call, write_log

ITEMS = 30


@pytest.mark.parametrize(
    ("returns_after", "left_out", "ever"),
    [(None, True, True), (9, True, False), (2, False, False)],
)
def test_what_is_left_out_follows_from_when_people_come_back(
    tmp_path: Path, returns_after: int | None, left_out: bool, ever: bool
) -> None:
    """Histories are five items long, so that what comes back after nine events is in none."""
    rows = []
    for user in range(30):
        items = [(user + step) % ITEMS for step in range(20)]
        if returns_after is not None:
            items[12] = items[12 - returns_after]
        rows += [(f"u{user}", item, 1000 * step + user) for step, item in enumerate(items)]
    log = write_log(tmp_path / "log", rows)
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    prepared = call("prepare", *log, "--split", "paper", "--set", "split.history=5", "--out", dataset)
    assert prepared.code == 0, prepared.err
    trained = call("train", dataset, *SMALL_TRAINING, "--set", "demand=none", "--out", run)
    assert trained.code == 0, trained.err
    fit = json.loads((run / "result.json").read_text())["fit"]
    assert (fit["again"] < 0, fit["ever"]) == (left_out, ever)


@pytest.mark.parametrize(("left_out", "how"), [("true", "history left out"), ("ever", "all chosen left out")])
def test_references_leave_out_what_students_do(dataset: Path, tmp_path: Path, left_out: str, how: str) -> None:
    """A student that learned without its history's items ranks without them, whatever the demand."""
    options = [*SMALL_TRAINING, "--set", "demand=none", "--set", f"loss.leave_history={left_out}"]
    assert call("train", dataset, *options, "--out", tmp_path / "run").code == 0
    (table,) = call("compare", tmp_path / "run", "--json").json["tables"]
    rows = {row["label"]: row["metrics"] for row in table["rows"]}
    assert f"item-kNN, {how}" in rows
    assert "item-kNN, demand" not in rows
    assert rows["item-kNN"] != rows[f"item-kNN, {how}"]
    notes = " ".join(table["notes"])
    assert "not masked, except by students trained with a masked softmax, and in rows that say so" in notes

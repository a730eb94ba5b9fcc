"""The README's commands and its Python, run as they stand, with the real packaged models, on a small log."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
KINDS = ("robot", "puzzle", "train set", "doll house", "board game")


def block(language: str) -> str:
    """All blocks of a language, one after the other."""
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found, f"README has no {language} block"
    return "".join(found)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with log.csv and items.csv: 60 users who stay with one kind of toy."""
    folder = tmp_path_factory.mktemp("readme")
    generator = np.random.default_rng(0)
    items = [{"item_id": f"i{n}", "title": f"{KINDS[n % 5]} number {n}"} for n in range(30)]
    events = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{5 * int(generator.integers(6)) + user % 5}",
            "timestamp": 100 * step + user,
        }
        for user in range(60)
        for step in range(4)
    ]
    pl.DataFrame(items).write_csv(folder / "items.csv")
    pl.DataFrame(events).write_csv(folder / "log.csv")
    return folder


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_commands_of_the_readme_run(workplace: Path) -> None:
    for line in block("bash").splitlines():
        # the same language model, tuned on less: a test has no quarter of an hour
        smaller = " --set tuning.examples=8 --set tuning.epochs=1 --set title_tokens=8" if " bigrec " in line else ""
        run(["bash", "-c", line + smaller], workplace)
    assert (workplace / "work" / "report.html").stat().st_size > 100_000


def test_the_python_of_the_readme_runs(workplace: Path) -> None:
    program = block("python")
    assert len([line for line in program.splitlines() if line and "import" not in line]) <= 10
    assert run([sys.executable, "-c", program], workplace).strip()


def test_every_file_that_the_readme_names_exists() -> None:
    root = Path(__file__).parents[2]
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / name).exists(), name

"""Fixtures that the tests of the command line share: a small dataset, a language model of a few thousand weights."""

import shutil
from pathlib import Path

import pytest
from cli_helpers import SMALL_TEACHER, SMALL_TRAINING, call, item_titles, log_rows, write_log

from tiny_llm import write_tiny_llm

INSTRUCTIONS = "### Instruction: ### Input: ### Response: Given the titles of the items a user chose, oldest first"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset directory."""
    folder = tmp_path_factory.mktemp("dataset")
    out = folder / "dataset"
    outcome = call("prepare", *write_log(folder, list(log_rows())), "--set", "split.history=5", "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has learned nothing, in transformers' format."""
    return write_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", [*item_titles(), INSTRUCTIONS])


@pytest.fixture(scope="session")
def taught(dataset: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge directory: all training, some validation and some test examples are labelled."""
    out = tmp_path_factory.mktemp("knowledge") / "knowledge"
    limits = ["--limit", "validation=10", "--limit", "test=12"]
    outcome = call("teach", dataset, "--llm", llm, *limits, *SMALL_TEACHER, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture
def knowledge(taught: Path, tmp_path: Path) -> Path:
    """A copy of the knowledge that a test may damage."""
    return Path(shutil.copytree(taught, tmp_path / "knowledge"))


@pytest.fixture(scope="session")
def runs(dataset: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain and a distilled run."""
    folder = tmp_path_factory.mktemp("runs")
    plain, distilled = folder / "plain", folder / "distilled"
    assert call("train", dataset, *SMALL_TRAINING, "--out", plain).code == 0
    outcome = call("train", dataset, "--knowledge", taught, *SMALL_TRAINING, "--out", distilled)
    assert outcome.code == 0, outcome.err
    return {"plain": plain, "distilled": distilled}

"""Fixtures that the tests of the command line share."""

from pathlib import Path

import pytest
from cli_helpers import call, log_rows, write_log


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset directory."""
    folder = tmp_path_factory.mktemp("dataset")
    out = folder / "dataset"
    outcome = call("prepare", *write_log(folder, list(log_rows())), "--set", "split.history=5", "--out", out)
    assert outcome.code == 0, outcome.err
    return out

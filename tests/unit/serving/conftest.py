"""Bundles that the tests of serving share."""

from pathlib import Path

import pytest
from serving_helpers import write_random_bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of random weights."""
    return write_random_bundles(tmp_path_factory.mktemp("bundles"))

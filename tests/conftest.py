"""The files that take longest come first: `make test` gives a process a file at a time, and waits for the last one."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that all use all cores stand in each other's way

LONGEST = ("test_cli_run.py", "test_readme.py", "test_retrieval.py", "test_bigrec.py", "test_cli_update.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))

"""What docstrings compute is what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "core.arrays",
        "core.titles",
        "data.values",
        "evaluation.metrics",
        "evaluation.significance",
        "knowledge.confidence",
        "training.loop",
        "workflow.answers",
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"dllm2rec.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""Which cells a table of the paper compares."""

from pathlib import Path
from typing import Any

import pytest

from dllm2rec.comparison.evidence import Group
from dllm2rec.reporting.paper.cells import differences
from dllm2rec.settings.config import TrainSettings
from dllm2rec.workflow.runs import Run, Source, make_config


def cell(**settings: Any) -> Group:
    config = make_config(
        student="S",
        method="DLLM2Rec",
        seed=1,
        settings=TrainSettings.model_validate({"protocol": "paper", "method": {"kind": "dllm2rec"}, **settings}),
        dataset=Source(path=Path("dataset"), hash="abc", name="toys"),
        knowledge=None,
    )
    return Group(label="S", runs=(Run(Path("run"), config),), ranks=(), validation=0.0, seconds_per_1000=1.0)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, set()),
        ({"method": {"kind": "dllm2rec", "lambda_d": 0.0}}, {"lambda_d"}),
        ({"train_on": "before-cut"}, {"train_on"}),
        ({"demand": "validation"}, {"demand"}),
        ({"training": {"learning_rate": 0.1}}, {"training.learning_rate"}),
    ],
)
def test_all_that_two_cells_differ_in_is_named(settings: dict[str, Any], names: set[str]) -> None:
    assert differences(cell(**settings), cell()).keys() == names

"""The teacher of one's own that docs/methods.md writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from dllm2rec import Dataset, FitSettings, Knowledge, SoftLabelSettings, TrainSettings, examine, train

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_a_script_that_writes_labels_is_a_teacher(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## A teacher of your own")[2]
    program = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert program is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "dataset").symlink_to(small.path)
    popularity = small.train_counts("before-cut").astype(np.float32)

    def my_scores(history: np.ndarray) -> np.ndarray:
        return np.tile(popularity, (len(history), 1))

    for _ in range(2):  # the second time there is nothing left to do
        exec(program[1], {"my_scores": my_scores})
    knowledge = Knowledge.load(tmp_path / "work" / "mine")
    parts = [small.training_examples("before-cut"), small.examples("validation"), small.examples("test")]
    assert len(knowledge.labels) == sum(map(len, parts))
    assert list(knowledge.labels.ranked_items[0][:3]) == list(np.argsort(-popularity, kind="stable")[:3])
    assert examine(knowledge, small).coverage["validation"].labelled == len(small.examples("validation"))

    settings = TrainSettings(method=SoftLabelSettings(embedding=False), training=FitSettings(epochs=1))
    taught = train(small, settings, out=tmp_path / "taught", knowledge=knowledge).finished().fit
    assert taught.labelled == len(small.training_examples("before-cut"))

"""What lies beside labels."""

from pathlib import Path

import numpy as np
import pytest

from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge
from dllm2rec.settings.teacher import ReferenceTeacher
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.workflow import teaching
from dllm2rec.workflow.labelling import DONE, encoder_of
from dllm2rec.workflow.teaching import teach


def test_knowledge_names_the_encoder_that_read_its_titles(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or `add-items` would read the titles of new items with another one."""
    vectors = np.random.default_rng(0).normal(size=(small.num_items, 4)).astype(np.float32)
    monkeypatch.setattr(teaching, "encode_titles", lambda *_, **__: vectors)
    blend = ReferenceTeacher(reference=BlendSettings(), model="mine", folds=2)
    made = teach(small, blend, out=tmp_path / "made")
    assert encoder_of(made) == "mine"
    taken = teach(small, blend.model_copy(update={"vectors": made.path}), out=tmp_path / "taken")
    assert encoder_of(taken) is None  # they are whose they are
    (tmp_path / "made" / DONE).unlink()
    assert encoder_of(Knowledge.load(tmp_path / "made")) is None

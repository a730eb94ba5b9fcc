"""What lies beside labels."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter
from dllm2rec.settings.teacher import ReferenceTeacher
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.workflow import teaching
from dllm2rec.workflow.labelling import DONE, encoder_of
from dllm2rec.workflow.teaching import teach

BLEND = ReferenceTeacher(reference=BlendSettings(), model="mine", folds=2)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An encoder of random vectors, which notes where it had to encode."""
    places: list[Path] = []

    def teach_encoder(dataset: Dataset, *, out: Path, model: str, words: bool) -> Knowledge:
        facts: dict[str, Any] = {"model": model, "settings": {"words": words}, "depth": 0, "vector_size": 4}
        facts |= {"dataset_hash": dataset.content_hash, "num_items": dataset.num_items, "teacher": "encoder"}
        writer = KnowledgeWriter(out, KnowledgeManifest(**facts))
        if not writer.has_item_vectors():
            places.append(out)
            writer.write_item_vectors(np.random.default_rng(0).normal(size=(dataset.num_items, 4)).astype(np.float32))
        return Knowledge.load(out)

    monkeypatch.setattr(teaching, "teach_encoder", teach_encoder)
    return places


def test_knowledge_names_the_encoder_that_read_its_titles(small: Dataset, tmp_path: Path, encoded: list[Path]) -> None:
    """Or `add-items` would read the titles of new items with another one."""
    made = teach(small, BLEND, out=tmp_path / "made")
    assert encoder_of(made) == "mine"
    taken = teach(small, BLEND.model_copy(update={"vectors": made.path}), out=tmp_path / "taken")
    assert encoder_of(taken) == "mine"  # whatever becomes of those that they were taken from
    (tmp_path / "made" / DONE).unlink()
    assert encoder_of(Knowledge.load(tmp_path / "made")) is None
    assert encoder_of(taken) == "mine"
    assert len(encoded) == 1


def test_titles_are_encoded_once_however_often_labelling_is_interrupted(
    small: Dataset, tmp_path: Path, encoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def fill(*_: object, **__: object) -> None:
        raise UserError("no space left") from OSError(errno.ENOSPC, "No space left on device")

    for part, end, told in (
        ("with_text_weight", interrupt, KeyboardInterrupt),
        ("label_with_reference", interrupt, KeyboardInterrupt),
        ("label_with_reference", fill, UserError),
    ):
        with monkeypatch.context() as patch, pytest.raises(told):
            patch.setattr(teaching, part, end)
            teach(small, BLEND, out=tmp_path / "out")
    whole = teach(small, BLEND, out=tmp_path / "out")
    assert len(encoded) == 1
    assert not list(tmp_path.rglob("*.tmp"))
    assert whole.item_vectors is not None


def test_what_is_refused_after_titles_were_encoded_leaves_nothing(
    small: Dataset, tmp_path: Path, encoded: list[Path]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match="something else"):
        teach(small, BLEND, out=tmp_path / "mine")
    assert not encoded
    with pytest.raises(UserError, match="limit"):
        teach(
            small,
            BLEND.model_copy(update={"limits": BLEND.limits.model_copy(update={"train": 10**6})}),
            out=tmp_path / "out",
        )
    assert len(encoded) == 1
    assert not (tmp_path / "out").exists()

"""A strong student, with all that its protocol gives it, goes on within an epoch as if nothing had happened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge
from dllm2rec.settings.config import TrainSettings
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.training import checkpoint
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.training import train

ENDINGS = (1, 3)
"""The parts of epochs after which the process dies, counted over its lives."""


@pytest.fixture(scope="module")
def knowledge(small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    vectors = numpy_generator(0, "vectors").normal(size=(small.num_items, 6)).astype(np.float32)
    return label_with_reference(
        small,
        BlendSettings(text_weight=0.1),
        examples=small.training_examples("before-cut"),
        out=tmp_path_factory.mktemp("knowledge") / "blend",
        item_vectors=vectors,
        depth=10,
    )


@pytest.mark.parametrize("encoder", ["transformer", "sasrec", "gru4rec"])
def test_a_strong_student_that_is_killed_within_an_epoch_ends_with_the_same_weights(
    encoder: str, small: Dataset, knowledge: Knowledge, tmp_path: Path, die_after: Callable[..., None]
) -> None:
    settings = TrainSettings.model_validate(
        {
            "student": {"kind": encoder, "dim": 8},
            "training": {"epochs": 2, "batch_size": 64},
            "method": {"kind": "soft-labels", "top_k": 10},
        }
    )
    assert settings.student.offset_dropout > 0

    def trained(name: str) -> Run:
        return train(small, settings, out=tmp_path / name, knowledge=knowledge)

    whole = trained("whole")
    die_after(*ENDINGS)
    for _ in ENDINGS:
        with pytest.raises(KeyboardInterrupt):
            trained("killed")
        assert (tmp_path / "killed" / checkpoint.HALFWAY).exists()
    killed = trained("killed")
    one, other = (load_file(run.path / "checkpoint" / "latest.safetensors") for run in (whole, killed))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert whole.finished().fit.validation == killed.finished().fit.validation
    assert whole.finished().fit.demand == killed.finished().fit.demand

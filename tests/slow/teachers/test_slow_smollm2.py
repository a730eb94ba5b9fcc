"""The packaged language model on MovieLens-100K, at a size that shows that it learns."""

from pathlib import Path

import numpy as np
import pytest

from dllm2rec.data import PaperSplit, ml_100k, prepare, read_log
from dllm2rec.teachers.bigrec import BigRecSettings, teach_bigrec
from dllm2rec.teachers.tuning import TuningSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_tuning_teaches_it_to_write_titles(tmp_path: Path) -> None:
    split = PaperSplit(sample_train=1000, sample_validation=200, sample_test=200)
    dataset = prepare(read_log(*ml_100k()), split, tmp_path / "dataset", name="ml-100k")
    titles = set(dataset.titles)
    shares = []
    for examples in (0, 320):
        tuning = TuningSettings(examples=examples, epochs=1, batch_size=8, micro_batch_size=8)
        knowledge = teach_bigrec(
            dataset,
            llm="smollm2-135m",
            out=tmp_path / f"tuned-{examples}",
            limits={"test": 64},
            settings=BigRecSettings(title_tokens=16, tuning=tuning),
            seed=0,
        )
        assert knowledge.item_vectors is not None
        assert np.isfinite(knowledge.item_vectors).all()
        shares.append(np.mean([text in titles for text in knowledge.labels.generated_text]))
    untuned, tuned = shares
    assert tuned > untuned
    assert tuned > 0.05

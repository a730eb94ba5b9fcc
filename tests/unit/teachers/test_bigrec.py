import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.data.extension import extend
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.teacher import BigRecTeacher, Limits
from dllm2rec.teachers import bigrec
from dllm2rec.teachers.bigrec import BigRecSettings, teach_bigrec
from dllm2rec.teachers.choosing import random
from dllm2rec.teachers.tuning import TuningSettings
from dllm2rec.workflow.teaching import teach as teach_from_settings
from dllm2rec.workflow.teaching import teach_only_new

SETTINGS = BigRecSettings(
    title_tokens=8,
    prompt_tokens=128,
    depth=5,
    shard_size=4,
    batch_size=4,
    tuning=TuningSettings(examples=16, validation_examples=4, epochs=2, batch_size=8, micro_batch_size=4),
)
LIMITS = {"validation": 3, "train": 20}


def teach(dataset: Dataset, llm: Path, out: Path, limits: dict | None = None, **changes: object) -> Knowledge:
    settings = SETTINGS.model_copy(update=changes)
    selection = {}
    for split, limit in (limits or LIMITS).items():
        examples = dataset.examples(split)
        selection[split] = examples.take(random(examples, seed=3)[:limit])
    return teach_bigrec(dataset, llm=str(llm), out=out, selection=selection, settings=settings, seed=3)


def assert_same_labels(one: Knowledge, other: Knowledge) -> None:
    for name in ("example_id", "ranked_items", "distances", "target_distance"):
        assert np.array_equal(getattr(one.labels, name), getattr(other.labels, name)), name
    assert one.labels.generated_text == other.labels.generated_text
    assert np.array_equal(one.item_vectors, other.item_vectors)


@pytest.fixture(scope="module")
def knowledge(tiny_dataset: Dataset, tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    return teach(tiny_dataset, tiny_llm, tmp_path_factory.mktemp("teach") / "knowledge")


def test_labels_rank_distinct_items_by_distance(knowledge: Knowledge, tiny_dataset: Dataset) -> None:
    labels = knowledge.labels
    assert labels.ranked_items.shape == (23, 5)
    assert (np.diff(labels.distances, axis=1) >= 0).all()
    assert knowledge.manifest.dataset_hash == tiny_dataset.content_hash
    assert knowledge.manifest.settings["tuning"]["examples"] == 16
    assert (knowledge.path / "adapter" / "adapter_model.safetensors").exists()
    assert not list(knowledge.path.parent.glob(".*tuning*"))


def test_the_target_distance_is_that_of_the_listed_target(knowledge: Knowledge, tiny_dataset: Dataset) -> None:
    found = 0
    for split in ("train", "validation"):
        examples = tiny_dataset.examples(split)
        target = dict(zip(examples.example_id.tolist(), examples.target.tolist(), strict=True))
        labels = knowledge.labels
        for row, identity in enumerate(labels.example_id.tolist()):
            places = np.flatnonzero(labels.ranked_items[row] == target.get(identity, -1))
            if len(places):
                found += 1
                assert labels.distances[row, places[0]] == pytest.approx(
                    labels.target_distance[row], rel=1e-3, abs=1e-3
                )
    assert found > 0


def test_tuning_changes_what_is_written(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    plain = teach(tiny_dataset, tiny_llm, tmp_path / "plain", tuning=TuningSettings(examples=0))
    assert not np.array_equal(plain.item_vectors, knowledge.item_vectors)


def test_a_greater_limit_adds_to_the_labels_that_are_there(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    few = teach(tiny_dataset, tiny_llm, tmp_path / "grown", {"train": 6})
    assert len(few.labels) == 6
    grown = teach(tiny_dataset, tiny_llm, tmp_path / "grown")
    assert grown.labels.example_id.tolist() == knowledge.labels.example_id.tolist()


PROGRAM = """
import sys
from pathlib import Path
from dllm2rec.data import Dataset
from dllm2rec.teachers import bigrec, choosing
settings = bigrec.BigRecSettings.model_validate_json(sys.argv[4])
dataset = Dataset.load(Path(sys.argv[1]))
first = {split: dataset.examples(split).take(choosing.random(dataset.examples(split), seed=3)[:limit])
         for split, limit in (("validation", 3), ("train", 20))}
bigrec.teach_bigrec(dataset, llm=sys.argv[2], out=Path(sys.argv[3]), selection=first, settings=settings, seed=3)
"""


def test_a_killed_run_resumes_and_ends_with_the_same_labels(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = [str(tiny_dataset.path), str(tiny_llm), str(out), SETTINGS.model_dump_json()]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(out.glob("labels-*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    labelled = list(out.glob("labels-*.parquet"))
    assert len(labelled) >= 2
    assert_same_labels(teach(tiny_dataset, tiny_llm, out), knowledge)


def test_tuning_that_is_interrupted_goes_on(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.teachers import trainer

    steps: list[int] = []

    class Interrupting(trainer._Progress):
        def on_step_begin(self, args: object, state: Any, control: object, **_: object) -> None:
            steps.append(state.global_step)
            if steps.count(step) == 1 and steps[-1] == step:
                raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_Progress", Interrupting)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    for step in (2, 3):  # at the start of the second epoch, and within it
        out = tmp_path / f"out{step}"
        steps.clear()
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_dataset, tiny_llm, out)
        resumed = teach(tiny_dataset, tiny_llm, out)
        assert steps == [*range(step + 1), *range(step, 4)]
        assert_same_labels(resumed, knowledge)


def test_tuning_takes_one_gpu_where_there_are_several(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several in one process would be copies of the model, which trl refuses."""
    from dllm2rec.teachers import trainer

    original, found = trainer.SFTConfig, list[int]()

    def several(**options: Any) -> Any:
        arguments = original(**options)
        arguments._n_gpu = 2
        return arguments

    class Watching(trainer._Trainer):
        def __init__(self, **options: Any) -> None:
            found.append(options["args"].n_gpu)
            super().__init__(**options)

    monkeypatch.setattr(trainer, "SFTConfig", several)
    monkeypatch.setattr(trainer, "_Trainer", Watching)
    teach(tiny_dataset, tiny_llm, tmp_path / "out")
    assert found == [1]


def test_early_stopping_that_is_interrupted_is_as_patient_as_before(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm2rec.teachers import trainer

    epochs: list[int] = []
    interrupted: list[int] = []

    class Watching(trainer._Progress):
        def on_epoch_begin(self, args: object, state: object, control: object, **_: object) -> None:
            if round(state.epoch) in interrupted:
                interrupted.remove(round(state.epoch))
                raise KeyboardInterrupt
            epochs.append(round(state.epoch))

    class Worsening(trainer._Trainer):
        def compute_loss(self, model: Any, *arguments: Any, **more: Any) -> Any:
            loss = super().compute_loss(model, *arguments, **more)
            return loss if model.training else torch.tensor(self.state.epoch)

    def ends_once(*arguments: Any) -> None:
        if "end" in dying:
            dying.remove("end")
            raise KeyboardInterrupt
        save_adapter(*arguments)

    save_adapter, dying = trainer.save_adapter, list[str]()
    monkeypatch.setattr(trainer, "_Progress", Watching)
    monkeypatch.setattr(trainer, "_Trainer", Worsening)
    monkeypatch.setattr(trainer, "save_adapter", ends_once)
    worse = SETTINGS.tuning.model_copy(update={"epochs": 6, "patience": 2})
    whole = teach(tiny_dataset, tiny_llm, tmp_path / "whole", tuning=worse)
    assert epochs == [0, 1, 2]  # it gave up
    usual, last = list(epochs), epochs[-1]
    for interrupted[:], dying[:] in (([last], []), ([], ["end"])):
        out = tmp_path / f"cut{len(dying)}"
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_dataset, tiny_llm, out, tuning=worse)
        resumed = teach(tiny_dataset, tiny_llm, out, tuning=worse)
        assert epochs == usual
        assert_same_labels(resumed, whole)


def test_writing_that_keeps_to_titles_writes_titles(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    for beams in (1, 2):
        out = tmp_path / f"beams{beams}"
        constrained = teach(tiny_dataset, tiny_llm, out, {"test": 6}, constrained=True, beams=beams)
        assert set(constrained.labels.generated_text) <= set(tiny_dataset.titles)


def test_other_settings_do_not_mix_with_the_labels_that_are_there(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 4})
    with pytest.raises(UserError, match=r"settings\.beams is 1, asked for 2"):
        teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 4}, beams=2)
    assert len(teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 8}, batch_size=2).labels) == 8  # less memory


def test_what_is_added_is_listed_as_deep_as_what_a_small_catalogue_had(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    teacher = BigRecTeacher(llm=str(tiny_llm), tuning=TuningSettings(examples=0), limits=Limits(train=4))
    before = teach_from_settings(tiny_dataset, teacher, out=tmp_path / "before")
    assert before.manifest.depth == tiny_dataset.num_items < teacher.depth
    later = {"user_id": range(40), "item_id": [10**6] * 40, "timestamp": range(10**6, 10**6 + 40)}
    pl.DataFrame(later).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": [10**6], "title": ["red doll"]}).write_csv(tmp_path / "items.csv")
    longer = extend(tiny_dataset, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "longer")
    after = teach_only_new(longer, before, out=tmp_path / "after")
    assert after.manifest.depth == before.manifest.depth
    assert len(after.labels) > len(before.labels)


def test_a_tuned_model_does_not_go_on_without_what_it_was_tuned_to(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    known = teach(tiny_dataset, tiny_llm, tmp_path / "known", {"train": 4})
    shutil.rmtree(known.path / "adapter")
    with pytest.raises(UserError, match="lacks adapter/"):
        bigrec.take_over(known, tiny_dataset, out=tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_vectors_that_were_lost_are_made_again(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    plain = TuningSettings(examples=0)
    first = teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 4}, tuning=plain)
    (tmp_path / "out" / "item_vectors.safetensors").unlink()
    again = teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 8}, tuning=plain)
    assert np.array_equal(again.item_vectors, first.item_vectors)
    assert len(again.labels) == 8


def test_titles_that_are_all_alike_are_labelled(tiny_llm: Path, tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{user * 10 + item}\n" for user in range(30) for item in range(4))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + rows)
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{item},red robot\n" for item in range(4)))
    log = read_log(tmp_path / "log.csv", tmp_path / "items.csv")
    dataset = write_dataset(log, PaperSplit(), tmp_path / "dataset", name="alike")
    knowledge = teach(dataset, tiny_llm, tmp_path / "out", {"train": 4}, tuning=TuningSettings(examples=0), depth=4)
    assert sorted(knowledge.labels.ranked_items[0].tolist()) == [0, 1, 2, 3]


def test_states_that_are_not_finite_are_one_line(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigrec, "text_states", lambda _, texts, advance: np.full((len(texts), 32), np.nan, np.float32))
    with pytest.raises(UserError, match=r"not finite after tuning; lower tuning\.learning_rate"):
        teach(tiny_dataset, tiny_llm, tmp_path / "out", {"train": 4}, tuning=TuningSettings(examples=0))
    assert not (tmp_path / "out").exists()

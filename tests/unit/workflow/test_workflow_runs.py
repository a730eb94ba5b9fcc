"""A run directory and who may go on with it."""

from pathlib import Path
from typing import Any

import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import read_json, write_json
from dllm2rec.data import Dataset, Examples
from dllm2rec.settings.config import TrainSettings
from dllm2rec.workflow import training
from dllm2rec.workflow.runs import REVISION, Run, RunConfig, Source, family, make_config

DATASET = Source(path=Path("dataset"), hash="abc", name="toys")


def config(**settings: Any) -> RunConfig:
    cell = TrainSettings.model_validate(settings)
    return make_config(student="s", method="plain", seed=1, settings=cell, dataset=DATASET, knowledge=None)


def test_what_lies_within_a_run_is_its_own_wherever_the_run_is_moved(tmp_path: Path) -> None:
    made, now = tmp_path / "new", tmp_path / "now"
    source = Source(path=made / "dataset", hash="abc", name="toys")
    cell = TrainSettings.model_validate({})
    Run.at(
        made, make_config(student="s", method="plain", seed=1, settings=cell, dataset=source, knowledge=None)
    ).begin()
    write_json(made / "dataset" / "dataset.json", {})
    made.rename(now)
    assert Run.load(now).find(source) == now / "dataset"
    write_json(made / "dataset" / "dataset.json", {})  # the next update, where the last one was made
    assert Run.load(now).find(source) == now / "dataset"


def test_of_several_places_that_counts_which_holds_what_the_run_was_made_from(tmp_path: Path) -> None:
    there, copied = tmp_path / "work" / "dataset", tmp_path / "copy" / "dataset"
    source = Source(path=there, hash="abc", name="toys")
    made = make_config(student="s", method="plain", seed=1, settings=TrainSettings(), dataset=source, knowledge=None)
    run = Run.at(tmp_path / "copy" / "run", made)
    run.begin()
    write_json(copied / "dataset.json", {"content_hash": "abc"})
    write_json(there / "dataset.json", {"content_hash": "prepared anew"})
    assert run.find(source) == copied
    write_json(there / "dataset.json", {"content_hash": "abc"})
    assert run.find(source) == there
    write_json(there / "dataset.json", {"content_hash": "prepared anew"})
    write_json(copied / "dataset.json", {"content_hash": "another"})
    assert run.find(source) == there  # to be refused by its name
    (there / "dataset.json").write_text("cut")
    write_json(copied / "dataset.json", {"content_hash": "abc"})
    assert run.find(source) == copied


def test_a_run_keeps_the_settings_that_its_protocol_had_when_it_was_made(tmp_path: Path) -> None:
    Run.at(tmp_path, config(protocol="strong")).begin()
    written = read_json(tmp_path / "config.json")
    assert written["settings"]["student"].pop("transitions") is True
    del written["revision"]
    write_json(tmp_path / "config.json", written)  # as before there were transitions
    old = Run.load(tmp_path).config
    assert old.settings.student.transitions is False
    assert old.settings.student == config(protocol="strong").settings.student.model_copy(update={"transitions": False})
    assert old.revision == 1
    assert family(old) != family(config(protocol="strong"))
    told = rf"holds another run \(revision is 1, asked for {REVISION}; student\.transitions is False, asked for True"
    with pytest.raises(UserError, match=told):
        Run.at(tmp_path, config(protocol="strong"))


def test_a_run_goes_on_with_the_settings_that_it_was_begun_with(tmp_path: Path) -> None:
    Run.at(tmp_path, config(protocol="strong")).begin()
    assert Run.at(tmp_path, config(protocol="strong")).config == config(protocol="strong")
    with pytest.raises(UserError, match=r"holds another run \(training\.patience is 3, asked for 7\)"):
        Run.at(tmp_path, config(protocol="strong", training={"patience": 7}))


def test_an_update_is_named_by_what_it_goes_on_from_and_replays_and_its_family_by_no_seed() -> None:
    def seeded(seed: int, continues: Run | None = None, replay: float | None = None) -> RunConfig:
        return make_config(
            student="s",
            method="plain",
            seed=seed,
            settings=TrainSettings(),
            dataset=DATASET,
            knowledge=None,
            continues=continues,
            replay=replay,
        )

    first, second = (Run(Path(f"run-{seed}"), seeded(seed)) for seed in (1, 2))
    updates = [seeded(1, first, 4.0), seeded(1, first, 0.0), seeded(2, second, 4.0)]
    assert len({one.hash for one in [first.config, second.config, *updates]}) == 5
    assert family(first.config) == family(second.config)
    assert family(updates[0]) == family(updates[2]) != family(updates[1])
    assert family(updates[0]) != family(first.config)


def test_the_same_run_under_other_names_is_found_and_takes_them(tmp_path: Path) -> None:
    Run.at(tmp_path, config()).begin()
    renamed = config().model_copy(update={"student": "GRU", "method": "none at all"})
    there = Run.at(tmp_path, renamed)
    assert there.config.label == "GRU none at all"
    assert Run.load(tmp_path).config.label == config().label  # nothing is written
    there.begin()
    assert Run.load(tmp_path).config == there.config


@pytest.mark.parametrize(
    ("ever", "read", "expected"), [(True, True, "ever"), (False, True, True), (False, False, False)]
)
def test_a_softmax_leaves_out_what_few_choose_again(
    ever: bool, read: bool, expected: object, small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examples, "returns_are_rare", ever)
    monkeypatch.setattr(Examples, "repeats_are_rare", read)
    built: list[object] = []
    monkeypatch.setattr(training, "build_loss", lambda loss, **_: built.append(loss.leave_history) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(small, TrainSettings(), out=Path("nowhere"))
    assert built == [expected]

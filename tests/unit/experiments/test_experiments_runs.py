"""A run directory and who may go on with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_json, read_json, write_json
from dllm2rec.experiments.config import CellSettings
from dllm2rec.experiments.runs import MARKER, Run, RunConfig, Source, family, identity, make_config

DATASET = Source(path=Path("dataset"), hash="abc", name="toys")


def config(**settings: Any) -> RunConfig:
    cell = CellSettings.model_validate(settings)
    return make_config(student="s", method="plain", seed=1, settings=cell, dataset=DATASET, knowledge=None)


def begun(path: Path, asked: RunConfig, *, without: Callable[[dict[str, Any]], object]) -> None:
    """Begin a run as a version did that did not know some settings yet."""
    Run.at(path, asked).begin()
    written, described = read_json(path / MARKER), identity(asked)
    without(written["settings"])
    without(described)
    write_json(path / MARKER, {**written, "hash": hash_json(described)})


def test_what_lies_within_a_run_is_its_own_wherever_the_run_is_moved(tmp_path: Path) -> None:
    made, now = tmp_path / "new", tmp_path / "now"
    source = Source(path=made / "dataset", hash="abc", name="toys")
    cell = CellSettings.model_validate({})
    Run.at(
        made, make_config(student="s", method="plain", seed=1, settings=cell, dataset=source, knowledge=None)
    ).begin()
    write_json(made / "dataset" / "dataset.json", {})
    made.rename(now)
    assert Run.load(now).find(source) == now / "dataset"
    write_json(made / "dataset" / "dataset.json", {})  # the next update, where the last one was made
    assert Run.load(now).find(source) == now / "dataset"


@pytest.mark.parametrize(
    "without",
    [
        lambda settings: settings.pop("demand"),
        lambda settings: settings["training"].pop("later"),
        lambda settings: settings["student"].pop("unseen_offset"),
    ],
)
def test_an_older_run_is_the_same_where_what_is_new_has_its_default(
    without: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    begun(tmp_path, config(), without=without)
    there = Run.at(tmp_path, config())
    assert there.config.hash != config().hash
    assert there.config.settings == config().settings
    with pytest.raises(UserError, match=r"holds another run \(training\.epochs is 100, asked for 3\)"):
        Run.at(tmp_path, config(training={"epochs": 3}))


def test_an_older_run_is_another_where_what_is_new_is_asked_for(tmp_path: Path) -> None:
    begun(tmp_path, config(), without=lambda settings: settings.pop("demand"))
    with pytest.raises(UserError, match=r"holds another run \(demand is 'none', asked for 'validation'\)"):
        Run.at(tmp_path, config(demand="validation"))


def test_what_a_protocol_adds_later_is_not_what_an_older_run_did(tmp_path: Path) -> None:
    begun(tmp_path, config(protocol="strong"), without=lambda settings: settings["training"].pop("later"))
    assert Run.load(tmp_path).config.settings.training.later == 0.0
    with pytest.raises(UserError, match=r"holds another run \(training\.later is 0\.0, asked for 0\.4\)"):
        Run.at(tmp_path, config(protocol="strong"))
    assert Run.at(tmp_path, config(protocol="strong", training={"later": 0})).config.settings.protocol == "strong"


def test_an_update_is_named_by_what_it_goes_on_from_and_replays_and_its_family_by_no_seed() -> None:
    def seeded(seed: int, continues: Run | None = None, replay: float | None = None) -> RunConfig:
        return make_config(
            student="s",
            method="plain",
            seed=seed,
            settings=CellSettings(),
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

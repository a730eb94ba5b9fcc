"""What can be set, in words."""

import tomllib
from collections.abc import Iterator
from typing import get_args

import pytest

from dllm2rec import TrainSettings
from dllm2rec.settings.manual import REQUIRED, Section, Setting, Subject, about, manual
from dllm2rec.settings.parsing import override, validate
from dllm2rec.settings.protocol import Protocol


def settings(sections: list[Section]) -> dict[str, Setting]:
    return {one.name: one for section in sections for one in section.settings}


def cells(protocol: Protocol) -> Iterator[tuple[str, Setting]]:
    for section in manual("train", protocol=protocol):
        for one in section.settings:
            yield section.name, one


@pytest.mark.parametrize("subject", get_args(Subject))
def test_every_setting_says_what_it_means(subject: Subject) -> None:
    sections = manual(subject)
    assert all(section.about for section in sections)
    silent = [f"{section.name}: {one.name}" for section in sections for one in section.settings if not one.meaning]
    assert not silent


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_names_are_those_that_set_takes_and_defaults_change_nothing(protocol: Protocol) -> None:
    for section, one in cells(protocol):
        if one.default in ("None", REQUIRED):
            continue
        table, _, kind = section.partition(".kind = ")
        base = {"protocol": protocol, **({table: {"kind": kind.strip('"')}} if kind else {})}
        changed = override(base, [f"{one.name}={one.default}"])
        assert validate(TrainSettings, changed) == validate(TrainSettings, base), one.name


def test_what_is_written_is_toml() -> None:
    for _, one in cells("strong"):
        if one.default != "None":
            tomllib.loads(f"value = {one.default}")


def test_defaults_are_those_of_the_protocol() -> None:
    for protocol, default in (("strong", "0.2"), ("paper", "0.1")):
        found = {(section, one.name): one for section, one in cells(protocol)}
        assert found['student.kind = "sasrec"', "student.dropout"].default == default


def test_what_another_class_says_is_said_here() -> None:
    one = settings(manual("train"))["student.text_weight"]
    assert one.meaning == "``w_e``, of the projected text in the vector of an item, ``e_i = b_i + w_e g(z_i)``."
    assert one.allowed == "a number greater than 0"


def test_kinds_and_mixed_values() -> None:
    found = settings(manual("train"))
    assert found["student.kind"].default == '"transformer"'
    assert "'gru4rec'" in found["student.kind"].allowed
    assert found["method.embedding"].allowed == "true or false or one of 'projection', 'hint', 'htd'"


def test_teachers_nest() -> None:
    names = [section.name for section in manual("teach")]
    assert 'kind = "reference": reference.kind = "blend": reference.knn' in names
    assert settings(manual("teach"))["reference.knn.steps"].default == "5"


def test_an_experiment_points_to_the_verbs() -> None:
    found = settings(manual("run"))
    assert found["name"].default == REQUIRED
    assert "dllm2rec settings teach" in found["teacher"].meaning
    assert found["search.trials"].allowed == "a whole number greater than 0"
    assert settings(manual("tune")) == found


def test_words_choose() -> None:
    found = about("dropout", manual("train"))
    assert all("dropout" in name for name in settings(found))
    assert [section.name for section in about("dcd", manual("train"))] == ['method.kind = "dcd"']
    assert about("no such", manual("train")) == []

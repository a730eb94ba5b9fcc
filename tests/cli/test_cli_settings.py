"""`dllm2rec settings`: every name that can be set."""

from inspect import signature
from typing import get_args

from cli_helpers import call

from dllm2rec.cli.main import app
from dllm2rec.settings.manual import Subject


def test_settings_lists_names_with_defaults_and_meanings() -> None:
    told = call("settings", "train", "student.blocks")
    assert told.code == 0
    assert "how many attention" in told.out.lower()
    first = call("settings", "train", "student.blocks", "--json").json[0]
    assert first["settings"][0] == {
        "name": "student.blocks",
        "default": "1",
        "allowed": "a whole number greater than 0",
        "meaning": "How many attention blocks.",
    }


def test_settings_with_no_such_name() -> None:
    told = call("settings", "train", "drpout")
    assert told.code == 2
    assert "no setting with 'drpout'" in told.err


def test_every_verb_that_takes_settings_is_listed() -> None:
    verbs = [command.callback for command in app.registered_commands if command.callback is not None]
    takes = {verb.__name__ for verb in verbs if "settings" in signature(verb).parameters}
    assert takes == set(get_args(Subject))

"""`dllm2rec settings`: every name that can be set."""

from cli_helpers import call


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

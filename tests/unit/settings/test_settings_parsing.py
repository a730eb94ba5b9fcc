"""Settings: overrides, and errors in one line that names the field and what it allows."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from dllm2rec.core.errors import UserError
from dllm2rec.settings.config import TrainSettings
from dllm2rec.settings.parsing import override, parse_override, read_toml, validate


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cat(Strict):
    kind: Literal["cat"] = "cat"
    lives: int = Field(default=9, ge=1, le=9)


class Dog(Strict):
    kind: Literal["dog"] = "dog"
    weight: Annotated[float, Field(gt=0, lt=90)] = 10.0


class Street(Strict):
    name: str | None = None


class Home(Strict):
    street: Street = Street()
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5,)
    height: Annotated[float, Field(gt=0)] | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    rooms: PositiveInt | None = None
    colour: Literal["red", "blue"] = "red"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a.b=3", ("a", "b"), 3),
        ("a=1e-4", ("a",), 1e-4),
        ("a=true", ("a",), True),
        ("a=[1, 2]", ("a",), [1, 2]),
        ("a=smollm2-135m", ("a",), "smollm2-135m"),
        ('a="x=y"', ("a",), "x=y"),
        ("a=", ("a",), ""),
    ],
)
def test_override_values_are_toml_or_text(text: str, path: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".a=1"])
def test_override_needs_a_name_and_a_value(text: str) -> None:
    with pytest.raises(UserError, match="name=value"):
        parse_override(text)


def test_override_goes_deep_into_tables_and_lists_and_leaves_the_source_alone() -> None:
    values = {"pet": {"kind": "cat", "lives": 3}, "pets": [{"kind": "dog"}]}
    assert override(values, ["pet.lives=4", "pets.0.weight=5", "rooms=2"]) == {
        "pet": {"kind": "cat", "lives": 4},
        "pets": [{"kind": "dog", "weight": 5}],
        "rooms": 2,
    }
    assert values == {"pet": {"kind": "cat", "lives": 3}, "pets": [{"kind": "dog"}]}


def test_a_new_kind_forgets_what_was_set_for_the_old_one() -> None:
    assert override({"pet": {"kind": "cat", "lives": 3}}, ["pet.kind=dog"]) == {"pet": {"kind": "dog"}}


def test_override_past_a_list_or_through_a_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"pets\.1\.weight"):
        override({"pets": [{}]}, ["pets.1.weight=3"])
    with pytest.raises(UserError, match="rooms"):
        override({"rooms": 3}, ["rooms.big=1"])
    with pytest.raises(UserError, match=r"seeds\.0\.x: there is nothing below 'seeds'"):
        override({"seeds": [1, 2]}, ["seeds.0.x=1"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colours": "red"}, "unknown setting 'colours' (did you mean 'colour'?)"),
        ({"pet": {"kind": "cat", "livs": 3}}, "unknown setting 'pet.livs' (did you mean 'pet.lives'?)"),
        ({"pets": [{"kind": "dog", "wight": 3}]}, "unknown setting 'pets.0.wight' (did you mean 'pets.0.weight'?)"),
        ({"pet": {"kind": "catt"}}, "pet.kind: unknown 'catt' (did you mean 'cat'?)"),
        ({"pet": {"lives": 3}}, "pet.kind is missing; one of 'cat', 'dog'"),
        (
            {"pet": {"kind": "cat", "lives": 0}},
            "pet.lives: 0 is not allowed; it must be a whole number at least 1 and at most 9",
        ),
        (
            {"pet": {"kind": "dog", "weight": 90}},
            "pet.weight: 90 is not allowed; it must be a number greater than 0 and less than 90",
        ),
        ({"rooms": 0}, "rooms: 0 is not allowed; it must be a whole number greater than 0"),
        ({"height": -1}, "height: -1 is not allowed; it must be a number greater than 0"),
        ({"shares": [0.5, 1]}, "shares.1: 1 is not allowed; it must be a number greater than 0 and less than 1"),
        ({"street": {"nome": "x"}}, "unknown setting 'street.nome' (did you mean 'street.name'?)"),
        ({"lives": 3}, "unknown setting 'lives' (did you mean 'pet.lives'?)"),
        ({"street": {"lives": 3}}, "unknown setting 'street.lives' (did you mean 'pet.lives'?)"),
        ({"pet": {"kind": "cat", "weight": 3}}, "unknown setting 'pet.weight' (known: kind, lives)"),
        ({"pet": 3}, "pet: 3 is not allowed; it must be a table of settings"),
        ({"street": 3}, "street: 3 is not allowed; it must be a table of settings"),
        ({"rooms": "many"}, "rooms: 'many' is not allowed; it must be a whole number greater than 0"),
        ({"colour": "green"}, "colour: 'green' is not allowed; it must be one of 'red', 'blue'"),
    ],
)
def test_what_is_wrong_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(Home, values)
    assert str(caught.value) == message


def test_the_source_comes_first() -> None:
    with pytest.raises(UserError, match=r"^demo\.toml: unknown setting"):
        validate(Home, {"x": 1}, source="demo.toml")


def test_toml_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = \n")
    with pytest.raises(UserError, match=r"not a TOML file.*line 1"):
        read_toml(broken)
    with pytest.raises(UserError):
        read_toml(tmp_path)


def test_none_is_a_value(tmp_path: Path) -> None:
    assert parse_override("training.clip_norm=None") == (("training", "clip_norm"), None)
    assert parse_override("demand=none") == (("demand",), "none")
    (tmp_path / "a.toml").write_text('[training]\nclip_norm = "None"\nbetas = [0.9, 0.98]\nname = "none"\n')
    assert read_toml(tmp_path / "a.toml") == {"training": {"clip_norm": None, "betas": [0.9, 0.98], "name": "none"}}
    cell = validate(TrainSettings, override({"protocol": "strong"}, ["training.clip_norm=None"]))
    assert cell.training.clip_norm is None

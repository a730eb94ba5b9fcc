"""Settings from TOML and from `--set a.b=c`, checked: what is wrong is one line that names the field."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import explain_os_error
from dllm2rec.settings.explain import explain

Model = TypeVar("Model", bound=BaseModel)
NONE = "None"
"""How a setting that may be None is set so: TOML has no word for it."""


def _speakable(name: str) -> str:
    if not re.fullmatch(r"[\w.+()-][\w.+() -]*", name):
        raise ValueError(f"'{name}' must be made of letters, digits, spaces and . + - ( )")
    return name


Name = Annotated[str, AfterValidator(_speakable)]
"""What tables show and directories are named after."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; the text "None" stands for None.

    Raises:
        UserError: it is missing, a directory, or not TOML; the message has the line.
    """
    try:
        values: dict[str, Any] = _with_none(tomllib.loads(path.read_text(encoding="utf-8")))
        return values
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise explain_os_error(error, path) from error


def _with_none(value: Any) -> Any:
    match value:
        case dict():
            return {name: _with_none(inside) for name, inside in value.items()}
        case list():
            return [_with_none(inside) for inside in value]
        case _:
            return None if value == NONE else value


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Split ``a.b=value``: `None`, TOML where it parses as such (`3`, `1e-4`, `true`, `[1, 2]`), else plain text.

    Raises:
        UserError: there is no ``=`` or no name before it.
    """
    name, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in name.split("."))
    if not equals or not all(parts):
        raise UserError(f"--set {text}: write it as name=value, such as training.epochs=5")
    if value.strip() == NONE:
        return parts, None
    try:
        return parts, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return parts, value.strip()


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return ``values`` with each ``a.b=value`` put in its place; a number in a path counts in a list."""
    changed = dict(values)
    for text in settings:
        path, value = parse_override(text)
        changed = put(changed, path, value)
    return changed


def put(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of ``values`` with ``value`` at ``path``.

    A table whose `kind` changes starts afresh: what was set for one kind means nothing to another.

    Raises:
        UserError: the path leads through a plain value, or past the end of a list.
    """
    first, *rest = path
    if not rest:
        kept = {} if first == "kind" and values.get("kind", value) != value else dict(values)
        return {**kept, first: value}
    inside = values.get(first, {})
    if isinstance(inside, Mapping):
        return {**values, first: put(inside, rest, value)}
    if isinstance(inside, list) and rest[0].isdecimal() and int(rest[0]) < len(inside):
        index, below = int(rest[0]), inside[int(rest[0])]
        if len(rest) == 1 or isinstance(below, Mapping):
            item = value if len(rest) == 1 else put(below, rest[1:], value)
            return {**values, first: [*inside[:index], item, *inside[index + 1 :]]}
    raise UserError(f"{'.'.join(path)}: there is nothing below '{first}' that could be set so")


def validate(model: type[Model], values: Mapping[str, Any], *, source: str = "") -> Model:
    """Check ``values`` against ``model``.

    Args:
        model: what they should be.
        values: nested, as from TOML.
        source: where they come from, for the message, such as the file.

    Raises:
        UserError: one line about the first thing that is wrong: an unknown name with the nearest known one, or the path
            of a value with what is allowed there.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = error.errors()
        first = next((one for one in details if one["type"] == "extra_forbidden"), details[0])
        raise UserError(f"{source}: {explain(model, first)}" if source else explain(model, first)) from None

"""An error of pydantic becomes one line: the field as the user writes it, and what is allowed there."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dllm2rec.core.errors import suggest

_BOUNDS = (
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Gt, "gt", "greater than"),
    (annotated_types.Le, "le", "at most"),
    (annotated_types.Lt, "lt", "less than"),
)


def explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """Put one error of pydantic into one line of plain words."""
    path, field, names = _locate(model, error["loc"])
    where = ".".join(path) or "settings"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting '{where}'{suggest(path[-1], names)}"
        case "missing":
            return f"{where} is missing"
        case "union_tag_not_found":
            kinds = [repr(tag) for candidate in _alternatives(field) for tag in _tags(candidate)]
            return f"{where}.kind is missing; one of {', '.join(kinds)}"
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
            return f"{where}.kind: unknown '{error['ctx']['tag']}'{suggest(error['ctx']['tag'], tags)}"
        case "value_error":
            return f"{where}: {error['ctx']['error']}"
        case _:
            allowed = _allowed(field)
            return f"{where}: {error['input']!r} is not allowed; it must be {allowed or _lower(error['msg'])}"


def _lower(message: str) -> str:
    text = message.removeprefix("Input should be ")
    return text[:1].lower() + text[1:]


def _locate(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], Any, list[str]]:
    """Follow pydantic's location: the path as the user writes it, what stands there, the names known beside it."""
    here: Any = model
    path: list[str] = []
    names: list[str] = []
    for part in location:
        here, narrowed = _narrow(here, part)
        if narrowed:
            continue
        path.append(str(part))
        names = list(here.model_fields) if _is_model(here) else []
        if _is_model(here):
            here = here.model_fields.get(str(part))
        else:
            here = next((argument for argument in reversed(get_args(here))), None)
    return path, here, names


def _narrow(here: Any, part: str | int) -> tuple[Any, bool]:
    """Take off wrappers; say whether ``part`` was the tag of a union, which is no part of the user's path."""
    candidates = [candidate for candidate in _alternatives(here) if candidate is not type(None)]
    models = [candidate for candidate in candidates if _is_model(candidate)]
    for candidate in models if len(candidates) > 1 else []:
        if part in _tags(candidate):
            return candidate, True
    return (models or candidates or [None])[0], False


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, below `Annotated` and `FieldInfo`; a list with one element for anything else."""
    if isinstance(annotation, FieldInfo):
        return _alternatives(annotation.annotation)
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _alternatives(member)]
    return [annotation]


def _tags(candidate: Any) -> tuple[str, ...]:
    """The values of a model's `kind`."""
    if not (_is_model(candidate) and "kind" in candidate.model_fields):
        return ()
    return get_args(candidate.model_fields["kind"].annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _allowed(field: Any) -> str:
    """What a field allows, in words; empty where only pydantic knows."""
    if not isinstance(field, FieldInfo):
        return ""
    members = [member for member in _alternatives(field.annotation) if member is not type(None)]
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if choices:
        return "one of " + ", ".join(repr(choice) for choice in choices)
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(members[0], "")
    bounds = [
        f"{words} {getattr(bound, name):g}"
        for bound in _metadata(field)
        for kind_, name, words in _BOUNDS
        if isinstance(bound, kind_)
    ]
    return " ".join(part for part in (kind, " and ".join(bounds)) if part)


def _metadata(field: FieldInfo) -> list[Any]:
    """Bounds of a field, also those inside `Annotated` members of a union such as ``PositiveInt | None``."""
    found = list(field.metadata)
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        if get_origin(annotation) is Annotated:
            found += get_args(annotation)[1:]
        if get_origin(annotation) in (Annotated, Union, types.UnionType):
            pending += get_args(annotation)
    return found

"""An error of pydantic becomes one line: the field as the user writes it, and what is allowed there."""

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
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
_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """Put one error of pydantic into one line of plain words."""
    path, field, names = _locate(model, error["loc"])
    where = ".".join(path) or "settings"
    match error["type"]:
        case "extra_forbidden":
            below = next((one for one in _below(model, path[-1]) if one != where), None)
            before = "".join(f"{part}." for part in path[:-1])
            meant = suggest(path[-1], names, before=before) if below is None else f" (did you mean '{below}'?)"
            return f"unknown setting '{where}'{meant}"
        case "missing":
            return f"{where} is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            return _explain_kind(where, field, error)
        case "value_error":
            return f"{where}: {error['ctx']['error']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{where}: {error['input']!r} is not allowed; it must be a table of settings"
        case _:
            return f"{where}: {error['input']!r} is not allowed; it must {_must(field, error)}"


def _must(field: Any, error: ErrorDetails) -> str:
    if error["type"] == "too_short":
        return f"have at least {error['ctx']['min_length']}"
    return f"be {allowed(field) or _lower(error['msg'])}"


def _explain_kind(where: str, field: Any, error: ErrorDetails) -> str:
    kinds = [tag for candidate in alternatives(field) for tag in tags(candidate)]
    if error["type"] == "union_tag_not_found":
        return f"{where}.kind is missing; one of {', '.join(map(repr, kinds))}"
    tag = error["ctx"]["tag"]
    return f"{where}.kind: unknown '{tag}'{suggest(tag, kinds)}"


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
        known = fields(here)
        names = list(known)
        here = known.get(str(part)) if known else next(iter(reversed(_arguments(here))), None)
    return path, here, names


def _narrow(here: Any, part: str | int) -> tuple[Any, bool]:
    """Take off wrappers; say whether ``part`` was the tag of a union, which is no part of the user's path."""
    candidates = [candidate for candidate in alternatives(here) if candidate is not type(None)]
    models = [candidate for candidate in candidates if _is_model(candidate)]
    for candidate in models if len(candidates) > 1 else []:
        if part in tags(candidate):
            return candidate, True
    return (models or candidates or [None])[0], False


def alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, below `Annotated` and `FieldInfo`; a list with one element for anything else."""
    if isinstance(annotation, FieldInfo):
        return alternatives(annotation.annotation)
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in alternatives(member)]
    return [annotation]


def tags(candidate: Any) -> tuple[str, ...]:
    """Return the values of a model's `kind`."""
    if not (_is_model(candidate) and "kind" in candidate.model_fields):
        return ()
    return get_args(candidate.model_fields["kind"].annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def fields(annotation: Any) -> dict[str, Any]:
    """Return the fields of a model; none of anything else."""
    return dict(annotation.model_fields) if _is_model(annotation) else {}


def _below(annotation: Any, name: str) -> Iterator[str]:
    """Yield the path of each field of that name in the tables of a model, as the user writes it."""
    for table, field in fields(annotation).items():
        for inside in filter(_is_model, alternatives(field)):
            yield from ([f"{table}.{name}"] if name in fields(inside) else [])
            yield from (f"{table}.{path}" for path in _below(inside, name))


def _arguments(annotation: Any) -> list[Any]:
    """The types inside a list, tuple or dict."""
    return [argument for argument in get_args(annotation) if argument is not Ellipsis]


def allowed(field: Any) -> str:
    """What a field allows, in words; empty where only pydantic knows."""
    members = [member for member in alternatives(field) if member is not type(None)]
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    plain = [_PLAIN[member] for member in members if member in _PLAIN]
    if choices:
        return " or ".join([*plain, "one of " + ", ".join(map(repr, choices))])
    found = _metadata(field)
    bounds = [
        f"{words} {getattr(one, name):g}" for one in found for bound, name, words in _BOUNDS if isinstance(one, bound)
    ]
    return " ".join(part for part in (" or ".join(plain), " and ".join(bounds)) if part)


def _metadata(annotation: Any) -> list[Any]:
    """Bounds of a field, also those inside `Annotated` members of a union such as ``PositiveInt | None``."""
    if isinstance(annotation, FieldInfo):
        return [*annotation.metadata, *_metadata(annotation.annotation)]
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        nested = [item for one in metadata for item in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return [*nested, *_metadata(inner)]
    if get_origin(annotation) in (Union, types.UnionType):
        return [item for member in get_args(annotation) for item in _metadata(member)]
    return []

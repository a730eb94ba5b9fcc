"""Every setting in words: name, default, what it may be and what it means, from the classes that check it."""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dllm2rec.serving.http.settings import ServeSettings
from dllm2rec.settings.config import Config, EvaluationSettings, TrainSettings
from dllm2rec.settings.dataset import DatasetSettings
from dllm2rec.settings.explain import allowed, alternatives, fields, tags
from dllm2rec.settings.protocol import DEFAULT, Protocol
from dllm2rec.settings.search import Search
from dllm2rec.settings.teacher import TeacherChoice
from dllm2rec.settings.update import UpdateSettings

Subject = Literal["prepare", "teach", "train", "update", "run", "tune", "serve"]
REQUIRED = "required"
_ELSEWHERE = {
    "dataset": "A table, see `dllm2rec settings prepare`.",
    "teacher": "A table, see `dllm2rec settings teach`; none if all methods are plain.",
    "students": "A table for each name that reports show, with student, loss, training and protocol, see "
    "`dllm2rec settings train`.",
    "methods": "A table for each name that reports show, see `dllm2rec settings train method`.",
    "training": "A table, see `dllm2rec settings train training`.",
    "search": "A table, see below; validation alone chooses among its trials. None trains the cells as they stand.",
    "evaluation": "A table, see below.",
}
_LISTED = re.compile(r"^(?:Attributes|Args):\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w[\w, \n]*):((?:.*\n)(?: {8}.*\n)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: as ``--set`` takes it.
        default: as it is written in TOML, `None` where nothing is, or `required`.
        allowed: in words; empty where the meaning says it.
        meaning: in words.
    """

    name: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings of one table.

    Attributes:
        name: of the table, with its kind where there are several, such as ``student.kind = "sasrec"``.
        about: what it is, a line.
        settings: in the order of their class.
    """

    name: str
    about: str
    settings: tuple[Setting, ...]


def manual(subject: Subject, *, protocol: Protocol = DEFAULT) -> list[Section]:
    """Return all settings of a verb; a table that comes in several kinds is a section for each.

    Args:
        subject: the verb.
        protocol: whose defaults those of ``train`` are.
    """
    match subject:
        case "prepare":
            found = _sections(DatasetSettings)
        case "teach":
            teachers = _tables(TeacherChoice)
            found = (part for one in teachers for part in _sections(one, name=f'kind = "{tags(one)[0]}"'))
        case "train":
            found = _cell(protocol)
        case "update":
            found = _sections(UpdateSettings)
        case "serve":
            found = _sections(ServeSettings)
        case "run" | "tune":
            found = _experiment()
    return [section for section in found if section.settings]


def about(words: str, sections: Iterable[Section]) -> list[Section]:
    """Keep what has ``words`` in the name of a section or of a setting."""
    kept = []
    for section in sections:
        some = tuple(one for one in section.settings if words in one.name or words in section.name)
        kept += [replace(section, settings=some)] if some else []
    return kept


def _cell(protocol: Protocol) -> Iterator[Section]:
    def defaults(**tables: Any) -> dict[str, Any]:
        return TrainSettings.model_validate({"protocol": protocol, **tables}).model_dump()

    yield _section(TrainSettings, defaults=defaults())
    for table, annotation in TrainSettings.model_fields.items():
        for one in _tables(annotation):
            kind = next(iter(tags(one)), None)
            said = defaults(**({table: {"kind": kind}} if kind else {}))[table]
            yield _section(one, name=f'{table}.kind = "{kind}"' if kind else table, prefix=f"{table}.", defaults=said)


def _experiment() -> Iterator[Section]:
    settings = []
    for name, annotation in Config.model_fields.items():
        own = _setting(Config, name, annotation)
        if name in _ELSEWHERE:
            own = replace(own, name=name, allowed="", meaning=_ELSEWHERE[name])
        settings.append(own)
    yield Section(name="", about=_first_lines(Config), settings=tuple(settings))
    yield _section(Search, name="search", prefix="search.")
    yield _section(EvaluationSettings, name="evaluation", prefix="evaluation.")


def _sections(model: type, *, name: str = "", prefix: str = "") -> Iterator[Section]:
    """Yield the section of a class of settings, then those of the tables in it."""
    yield _section(model, name=name, prefix=prefix)
    for table, annotation in fields(model).items():
        kinds = _tables(annotation)
        for one in kinds:
            words = f'{prefix}{table}.kind = "{tags(one)[0]}"' if len(kinds) > 1 else f"{prefix}{table}"
            yield from _sections(one, name=f"{name}: {words}" if name else words, prefix=f"{prefix}{table}.")


def _section(model: type, *, name: str = "", prefix: str = "", defaults: Mapping[str, Any] | None = None) -> Section:
    settings = []
    for field, annotation in fields(model).items():
        kinds = _tables(annotation)
        if field != "kind" and len(kinds) != 1:
            settings.append(_setting(model, field, annotation, prefix=prefix, defaults=defaults))
    return Section(name=name, about=_first_lines(model), settings=tuple(settings))


def _setting(
    model: type, field: str, annotation: Any, *, prefix: str = "", defaults: Mapping[str, Any] | None = None
) -> Setting:
    default = _default(model, field) if defaults is None else defaults[field]
    name, may_be = prefix + field, allowed(annotation)
    if kinds := [tag for one in _tables(annotation) for tag in tags(one)]:
        name, may_be = f"{name}.kind", f"one of {', '.join(map(repr, kinds))}"
        default = default["kind"] if isinstance(default, Mapping) else getattr(default, "kind", default)
    meaning = meanings(model).get(field, "")
    return Setting(name=name, default=_written(default), allowed=may_be, meaning=meaning[:1].upper() + meaning[1:])


def _tables(annotation: Any) -> list[Any]:
    """Return the classes of settings that a field may hold."""
    return [one for one in alternatives(annotation) if fields(one)]


def _default(model: Any, name: str) -> Any:
    return model.model_fields[name].get_default(call_default_factory=True)


def _written(value: Any) -> str:
    if value is PydanticUndefined:
        return REQUIRED
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first_lines(model: type) -> str:
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def meanings(model: type) -> dict[str, str]:
    """Return what the docstrings of a class, and of those above it, say of each attribute or argument."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        for listed in _LISTED.finditer(inspect.cleandoc(one.__dict__.get("__doc__") or "") + "\n"):
            for entry in _ENTRY.finditer(listed[1]):
                text = " ".join(entry[2].split())
                found |= {name: _elsewhere(one, name, text) for name in re.split(r"[,\s]+", entry[1])}
    return found


def _elsewhere(model: type, name: str, text: str) -> str:
    """Follow "see `Class`" to what that class says of the name."""
    seen = re.fullmatch(r"see `(\w+)`\.?", text)
    other = getattr(sys.modules[model.__module__], seen[1], None) if seen else None
    return meanings(other).get(name, text) if isinstance(other, type) else text

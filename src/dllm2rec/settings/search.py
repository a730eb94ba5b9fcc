"""What a search of an experiment may set, as read from TOML."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt, model_validator

from dllm2rec.core.errors import suggest
from dllm2rec.core.settings import Settings
from dllm2rec.settings.parsing import Name


class Range(Settings):
    """What a search may set one setting to: one of `choices`, or a number from `low` to `high`.

    Attributes:
        choices: values to choose from.
        low: smallest number.
        high: largest number.
        log: numbers are drawn evenly on a logarithmic scale.
        whole: whole numbers only.
    """

    choices: Annotated[tuple[bool | int | float | str, ...], Field(min_length=1)] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.choices is None) == (self.low is None) or (self.low is None) != (self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low {self.low} must be below high {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"a logarithmic range begins above 0, not at {self.low}")
        return self

    def samples(self) -> tuple[Any, ...]:
        """Return values that stand for all: each choice, or both ends."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None  # noqa: S101 - checked above
        assert self.high is not None  # noqa: S101
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


class Search(Settings):
    """A search: for each student and method the trial with the best validation NDCG@20 is trained for all seeds.

    Attributes:
        trials: of each student and method, plain ones included, so that none is tuned harder than another. Where all
            ranges of a method are choices, all combinations are tried in turn, and again from the start.
        seed: of what is proposed, and of the training of all trials.
        ranges: of settings of every cell, such as ``ranges.training.learning_rate``; by dotted name once read.
        methods: further ones of some methods, such as ``methods.DLLM2Rec.method.lambda_d``.
    """

    trials: PositiveInt
    seed: int = 0
    ranges: dict[str, Range] = Field(default_factory=dict)
    methods: dict[Name, dict[str, Range]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        flat = dict(values)
        if isinstance(flat.get("ranges"), Mapping):
            flat["ranges"] = _flat(flat["ranges"])
        if isinstance(flat.get("methods"), Mapping):
            flat["methods"] = {
                name: _flat(table) if isinstance(table, Mapping) else table for name, table in flat["methods"].items()
            }
        return flat

    def of(self, method: str) -> dict[str, Range]:
        """Return all ranges of a method."""
        return {**self.ranges, **self.methods.get(method, {})}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn names with dots into nested tables."""
    tables: dict[str, Any] = {}
    for name, value in values.items():
        inside = tables
        *path, last = name.split(".")
        for part in path:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return tables


def check_search(search: Search, methods: Mapping[str, Any]) -> None:
    """Refuse a search of methods that are not there, and one that tunes some and others not."""
    unknown = [name for name in search.methods if name not in methods]
    if unknown:
        raise ValueError(f"search.methods: no method '{unknown[0]}'{suggest(unknown[0], methods)}")
    empty = [name for name in methods if not search.of(name)]
    if empty:
        raise ValueError(
            f"search: method '{empty[0]}' has nothing to search; every method is tuned, or none: give it choices, "
            f"such as methods.{empty[0]}.training.learning_rate.choices = [1e-3, 3e-3] under [search]"
        )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested tables into dotted names of ranges."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and not value.keys() & Range.model_fields.keys():
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

"""What goes in and what comes out, as OpenAPI shows it."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

MAX_HISTORIES = 256
MAX_HISTORY = 10_000
MAX_K = 1_000


def _whole(value: object) -> object:
    """Let 3.0 be 3, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(value: object) -> object:
    whole = _whole(value)
    if isinstance(whole, bool) or not isinstance(whole, str | int):
        raise PydanticCustomError("id", "Input should be an id: text or a whole number")
    return whole


Id = StrictStr | StrictInt
History = Annotated[list[Annotated[Id, BeforeValidator(_id)]], Field(max_length=MAX_HISTORY)]


class RecommendRequest(BaseModel):
    """Ask what comes next after histories.

    Attributes:
        histories: for each user the ids of items, oldest first.
        k: how many items for each.
        exclude_seen: leave the items of the history out. Demand weights may rank them last without it, see the card.
        candidates: recommend only from these ids.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"histories": [["543", "475"]], "k": 5, "exclude_seen": True}]},
    )

    histories: Annotated[list[History], Field(max_length=MAX_HISTORIES)]
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K), BeforeValidator(_whole)] = 20
    exclude_seen: StrictBool = False
    candidates: History | None = None


class Answer(BaseModel):
    """What one history gets; the lists go together, best first.

    Attributes:
        items: ids.
        titles: of the items.
        scores: of the items; larger is better. For a fallback they are counts.
        unknown: ids of the history that the catalogue does not know, as they came; they were left out.
        fallback: nothing of the history is known, so these are the most popular items.
    """

    items: list[Id]
    titles: list[str]
    scores: list[float]
    unknown: list[Id]
    fallback: bool


class RecommendResponse(BaseModel):
    """The answers, in the order of the histories.

    Attributes:
        version: of the bundle that answered.
        results: one for each history.
        unknown_candidates: ids of the candidates that the catalogue does not know; they were left out.
    """

    version: str
    results: list[Answer]
    unknown_candidates: list[Id]


class Item(BaseModel):
    """One item of the catalogue.

    Attributes:
        id: its id.
        title: its title.
        score: where it was ranked: larger is better.
    """

    id: Id
    title: str
    score: float | None = None


class Items(BaseModel):
    """Items, best first.

    Attributes:
        version: of the bundle that answered.
        items: what was found.
    """

    version: str
    items: list[Item]


class Example(BaseModel):
    """A real user's history of the test examples.

    Attributes:
        history: oldest first.
        next: what came next.
        wrote: what the language model wrote after it; null if no model was asked, or it does not write.
    """

    history: list[Item]
    next: Item
    wrote: str | None


class Examples(BaseModel):
    """Histories to look at.

    Attributes:
        version: of the bundle that answered.
        examples: a few.
    """

    version: str
    examples: list[Example]


class Status(BaseModel):
    """How a server is.

    Attributes:
        status: "ok".
        version: of the bundle that answers.
        student: what it is.
        num_items: of its catalogue.
        compare: what is shown beside it, or null.
        key: whether requests need one.
    """

    status: str
    version: str
    student: str
    num_items: int
    compare: str | None
    key: bool

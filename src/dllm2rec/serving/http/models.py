"""What goes in and what comes out, as OpenAPI shows it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

Id = StrictStr | StrictInt


class RecommendRequest(BaseModel):
    """Ask what comes next after one history or several.

    Attributes:
        history: ids of one user's items, oldest first.
        histories: of several users; give one of the two.
        k: how many items for each.
        exclude_seen: leave the items of the history out.
        candidates: recommend only from these ids.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"history": ["B00004T1SC", "B00005YVRG"], "k": 5, "exclude_seen": True}]},
    )

    history: list[Id] | None = None
    histories: list[list[Id]] | None = None
    k: Annotated[StrictInt, Field(ge=1)] = 20
    exclude_seen: bool = False
    candidates: list[Id] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "RecommendRequest":
        if (self.history is None) == (self.histories is None):
            raise ValueError("give either `history` or `histories`")
        return self


class Answer(BaseModel):
    """What one history gets; the lists go together, best first.

    Attributes:
        items: ids.
        titles: of the items.
        scores: of the items; larger is better. For a fallback they are counts.
        unknown: ids of the history that the catalogue does not know; they were left out.
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
    """

    version: str
    results: list[Answer]


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

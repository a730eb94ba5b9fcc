"""Which log, and how it is cut."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from dllm2rec.core.settings import Settings
from dllm2rec.data import Columns, PaperSplit, SplitSettings
from dllm2rec.data.directory import Duplicates, Incomplete


class DatasetSettings(Settings):
    """A log and its split: either `source` or both files.

    Attributes:
        source: a dataset that a package ships.
        interactions: file with a user, an item and a time a row.
        items: file with an item id and a title a row.
        columns: names of columns that are not well known.
        duplicates: what happens to rows that repeat user, item and time of an earlier row.
        incomplete: what happens to items without a title, and to events of items that are not among the items, or have
            no title there.
        split: how the log is cut.
        name: for tables and reports; by default the source, or the name of the file of interactions, or of its
            folder where that is `interactions`.
    """

    source: Literal["ml-100k"] | None = None
    interactions: Path | None = None
    items: Path | None = None
    columns: Columns = Columns()
    duplicates: Duplicates = "keep"
    incomplete: Incomplete = "refuse"
    split: SplitSettings = PaperSplit()
    name: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        files = self.interactions is not None and self.items is not None
        some = self.interactions is not None or self.items is not None
        if (self.source is None) != files or (self.source is not None and some):
            raise ValueError("give either a source (ml-100k) or both files: interactions and items")
        return self

"""Which teacher, and how much of the dataset it labels."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from dllm2rec.core.errors import suggest
from dllm2rec.core.settings import Settings
from dllm2rec.data import Split, TrainOn
from dllm2rec.teachers.bigrec import BigRecSettings
from dllm2rec.teachers.choosing import Rule
from dllm2rec.teachers.merging import MergedVectors
from dllm2rec.teachers.packaged import DEFAULT
from dllm2rec.teachers.references import ItemKNNSettings, ReferenceSettings
from dllm2rec.teachers.retrieval import RetrievalSettings
from dllm2rec.teachers.texts import Counts, TextSettings


def share(text: str) -> float | None:
    """Return the share that a text such as "10%" names, above 0 and up to 1; None where it names none."""
    percent = float(text[:-1]) if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text) else 0
    return percent / 100 if 0 < percent <= 100 else None


def _count_or_share(value: object) -> object:
    if value is None or (type(value) is int and value >= 0):
        return value
    if isinstance(value, str) and share(value) is not None:
        return value
    raise ValueError(f'{value}: give a count, or a share above 0% and up to 100% such as "10%"')


class Limits(Settings):
    """How many examples of each split are labelled; None means all.

    Attributes:
        train: a count, or a share of the training examples such as "10%".
        validation: a count.
        test: a count.
    """

    train: Annotated[int | str | None, BeforeValidator(_count_or_share)] = None
    validation: NonNegativeInt | None = None
    test: NonNegativeInt | None = None

    def by_split(self) -> dict[Split, int | None]:
        """Return the limits in the order in which splits are labelled; `experiments.budget.counted` comes first."""
        assert not isinstance(self.train, str)  # noqa: S101 - a share is a count by now
        return {"train": self.train, "validation": self.validation, "test": self.test}


class LabellingTeacher(Settings):
    """What teachers that label examples have in common.

    Attributes:
        limits: how many examples of each split are labelled.
        choose: which training examples come first, see `teachers.choosing`. Examples of the other splits come in the
            order that is the default.
        vectors: knowledge directory whose item vectors the choice may read, in a file of settings relative to that
            file; without, it reads histories.
    """

    limits: Limits = Limits()
    choose: Rule = "random"
    vectors: Path | None = None

    newer: ClassVar[tuple[str, ...]] = ("choose", "vectors")
    """Settings that knowledge on disk may be older than: it keeps its name, for their defaults are not written."""

    @field_validator("choose", mode="before")
    @classmethod
    def _known_rule(cls, value: object) -> object:
        if value not in get_args(Rule):
            raise ValueError(f"unknown rule {value!r}{suggest(str(value), get_args(Rule))}")
        return value

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        usual = {name for name in self.newer if getattr(self, name) == fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in usual}


class BigRecTeacher(BigRecSettings, LabellingTeacher):
    """A language model that is tuned and writes titles; see also `LabellingTeacher`.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of the tuning and of which examples are labelled.
    """

    llm: str = DEFAULT
    revision: str | None = None
    seed: int = 0

    def method(self) -> BigRecSettings:
        """Return the settings of the method alone."""
        return BigRecSettings.model_validate({name: getattr(self, name) for name in BigRecSettings.model_fields})


def _whole_users(value: object) -> object:
    if value != "random":
        raise ValueError(
            f"{value}: a retrieval teacher reads whole users, so choosing single examples saves nothing; leave it out"
        )
    return value


class RetrievalTeacher(RetrievalSettings):
    """A language model that reads histories, and labels every position of them.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of the tuning, the heads, and of whose examples are labelled.
        limits: how many examples of each split are labelled; training examples user by user.
        choose: there is no choice; it is not part of what names knowledge.
    """

    llm: str = DEFAULT
    revision: str | None = None
    seed: int = 0
    limits: Limits = Limits()
    choose: Annotated[Literal["random"], BeforeValidator(_whole_users)] = Field("random", exclude=True)

    def method(self) -> RetrievalSettings:
        """Return the settings of the method alone."""
        return RetrievalSettings.model_validate({name: getattr(self, name) for name in RetrievalSettings.model_fields})


class EncoderTeacher(Settings):
    """A sentence encoder: item vectors, no labels.

    Attributes:
        model: short name of a packaged model, a directory, or a name on the Hugging Face hub.
        words: put the mean of a title's token states before the first layer, which knows words and no sentence, beside
            the state of the whole; what is alike in words is often what is wanted next.
        batch_size: titles at a time.
    """

    kind: Literal["encoder"] = "encoder"
    model: str = "minilm"
    words: bool = True
    batch_size: PositiveInt = 64


class TextTeacher(TextSettings):
    """A language model that explains items, users and examples in words; it is not tuned.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of which users and examples come first.
        counts: how many texts of each kind.
    """

    llm: str = DEFAULT
    revision: str | None = None
    seed: int = 0
    counts: Counts = Counts()

    def method(self) -> TextSettings:
        """Return the settings of the method alone."""
        return TextSettings.model_validate({name: getattr(self, name) for name in TextSettings.model_fields})


class ReferenceTeacher(LabellingTeacher):
    """Counting as a teacher: cheap labels to compare with, or to try the rest with; see also `LabellingTeacher`.

    Attributes:
        reference: which one.
        vectors: a reference by text needs them, too; None lets `model` make them.
        model: sentence encoder for a reference by text: packaged model, directory, or a name on the hub.
        words: of its vectors, as of an encoder that is a teacher.
        train_on: which sequences the reference is fitted to, and which training examples are labelled.
        folds: training examples are labelled by a reference that was fitted to the users of the other folds; 1 for one
            reference that has counted the answers, too.
        depth: items that a label lists, K.
        choose: here the first in time, if nothing else is said.
    """

    kind: Literal["reference"] = "reference"
    reference: ReferenceSettings = ItemKNNSettings()
    model: str = "minilm"
    words: bool = True
    train_on: TrainOn = "before-cut"
    folds: PositiveInt = 5
    depth: PositiveInt = 100
    choose: Rule = "oldest"

    newer: ClassVar[tuple[str, ...]] = ("choose",)


class KnowledgeSource(Settings):
    """What a teacher left on disk, to be merged.

    Attributes:
        path: knowledge directory; in a file of settings relative to that file.
    """

    kind: Literal["knowledge"] = "knowledge"
    path: Path


Source = Annotated[BigRecTeacher | RetrievalTeacher | ReferenceTeacher | KnowledgeSource, Field(discriminator="kind")]


def _several(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    if len(sources) < 2:
        raise ValueError(
            f"merging takes two or more, not {len(sources)}; name each with --from KNOWLEDGE, or in a "
            "[[teacher.sources]] table"
        )
    return sources


class MergedTeacher(Settings):
    """Several teachers as one, by calibrated confidence; see `merge`.

    Attributes:
        sources: directories, and teachers that are taught first, in directories beside the merged one.
        vectors: item vectors of the `first` source that has some, or of all, `concatenated`; then a teacher without
            labels may be among them.
        depth: items that a label lists, K; no more than the shortest list of a source.
    """

    kind: Literal["merged"] = "merged"
    sources: Annotated[tuple[Source, ...], AfterValidator(_several), Field(validate_default=True)] = ()
    vectors: MergedVectors = "first"
    depth: PositiveInt = 100


TeacherSettings = Annotated[
    BigRecTeacher | RetrievalTeacher | EncoderTeacher | TextTeacher | ReferenceTeacher | MergedTeacher,
    Field(discriminator="kind"),
]


class TeacherChoice(Settings):
    """The `[teacher]` table of an experiment."""

    teacher: TeacherSettings

"""Which teacher, and how much of the dataset it labels."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from dllm2rec.core.errors import suggest
from dllm2rec.core.settings import Settings
from dllm2rec.data import Split, TrainOn
from dllm2rec.teachers.bigrec import BigRecSettings
from dllm2rec.teachers.choosing import Rule
from dllm2rec.teachers.merging import MergedVectors
from dllm2rec.teachers.packaged import DEFAULT_ENCODER, DEFAULT_LLM
from dllm2rec.teachers.references import ItemKNNSettings, ReferenceSettings
from dllm2rec.teachers.retrieval import RetrievalSettings
from dllm2rec.teachers.texts import Counts, WritingSettings


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
        """Return the limits in the order in which splits are labelled; `workflow.budget.counted` comes first."""
        assert not isinstance(self.train, str)  # noqa: S101 - a share is a count by now
        return {"train": self.train, "validation": self.validation, "test": self.test}


class LabellingTeacher(Settings):
    """What teachers that label examples have in common.

    Attributes:
        limits: how many examples of each split are labelled.
        choose: which training examples come first. Examples of the other splits come in the order that is the
            default.
        vectors: knowledge directory whose item vectors the choice may read, in a file of settings relative to that
            file; without, it reads histories.
    """

    limits: Limits = Limits()
    choose: Rule = "random"
    vectors: Path | None = None

    @field_validator("choose", mode="before")
    @classmethod
    def _known_rule(cls, value: object) -> object:
        if value not in get_args(Rule):
            raise ValueError(f"unknown rule {value!r}{suggest(str(value), get_args(Rule))}")
        return value


class LanguageModelTeacher(Settings):
    """What teachers that are language models have in common.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of tuning and heads, where there are some, and of what is labelled or written about first.
    """

    llm: str = DEFAULT_LLM
    revision: str | None = None
    seed: int = 0


class BigRecTeacher(BigRecSettings, LanguageModelTeacher, LabellingTeacher):
    """A language model that is tuned and writes titles; see also `LanguageModelTeacher` and `LabellingTeacher`."""


def _whole_users(value: object) -> object:
    if value != "random":
        raise ValueError(
            f"{value}: a retrieval teacher reads whole users, so choosing single examples saves nothing; leave it out"
        )
    return value


class RetrievalTeacher(RetrievalSettings, LanguageModelTeacher):
    """A language model that reads histories, and labels every position of them; see also `LanguageModelTeacher`.

    Attributes:
        limits: how many examples of each split are labelled; training examples user by user.
        choose: there is no choice.
    """

    limits: Limits = Limits()
    choose: Annotated[Literal["random"], BeforeValidator(_whole_users)] = "random"


class EncoderTeacher(Settings):
    """A sentence encoder: item vectors, no labels.

    Attributes:
        model: short name of a packaged model, a directory, or a name on the Hugging Face hub.
        words: put the mean of a title's token states before the first layer, which knows words and no sentence, beside
            the state of the whole; what is alike in words is often what is wanted next.
    """

    kind: Literal["encoder"] = "encoder"
    model: str = DEFAULT_ENCODER
    words: bool = True


class TextTeacher(WritingSettings, LanguageModelTeacher):
    """A language model that explains items, users and examples in words; it is not tuned.

    Attributes:
        counts: how many texts of each kind.
    """

    counts: Counts = Counts()


Method = TypeVar("Method", bound=Settings)


def method_of(teacher: Settings, method: type[Method]) -> Method:
    """Return what a teacher's settings say of its method alone, such as `BigRecSettings`."""
    return method.model_validate({name: getattr(teacher, name) for name in method.model_fields})


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
    model: str = DEFAULT_ENCODER
    words: bool = True
    train_on: TrainOn = "before-cut"
    folds: PositiveInt = 5
    depth: PositiveInt = 100
    choose: Rule = "oldest"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(limit == 0 for limit in (self.limits.train, self.limits.validation, self.limits.test)):
            raise ValueError("limits of 0 leave nothing to label; item vectors alone come from --teacher encoder")
        return self


class KnowledgeSource(Settings):
    """What a teacher left on disk, to be learned from or merged.

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
    """Several teachers as one, by calibrated confidence.

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


TeacherChoice = Annotated[TeacherSettings | KnowledgeSource, Field(discriminator="kind")]
"""The `[teacher]` table of an experiment: a teacher, or what one left on disk."""

"""Which teacher, and how much of the dataset it labels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from dllm2rec.data import Split, TrainOn
from dllm2rec.experiments.dataset_settings import Strict
from dllm2rec.teachers.bigrec import BigRecSettings
from dllm2rec.teachers.merging import MergedVectors
from dllm2rec.teachers.packaged import DEFAULT
from dllm2rec.teachers.references import ItemKNNSettings, ReferenceSettings
from dllm2rec.teachers.retrieval import RetrievalSettings
from dllm2rec.teachers.texts import Counts, TextSettings


class Limits(Strict):
    """How many examples of each split are labelled; None means all."""

    train: NonNegativeInt | None = None
    validation: NonNegativeInt | None = None
    test: NonNegativeInt | None = None

    def by_split(self) -> dict[Split, int | None]:
        """Return the limits in the order in which splits are labelled."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class BigRecTeacher(BigRecSettings):
    """A language model that is tuned and writes titles.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of the tuning and of which examples are labelled.
        limits: how many examples of each split are labelled.
    """

    llm: str = DEFAULT
    revision: str | None = None
    seed: int = 0
    limits: Limits = Limits()

    def method(self) -> BigRecSettings:
        """Return the settings of the method alone."""
        return BigRecSettings.model_validate({name: getattr(self, name) for name in BigRecSettings.model_fields})


class RetrievalTeacher(RetrievalSettings):
    """A language model that reads histories, and labels every position of them.

    Attributes:
        llm: short name of a packaged model, a directory, a GGUF file, or a name on the Hugging Face hub.
        revision: branch, tag or commit of a hub name.
        seed: of the tuning, the heads, and of whose examples are labelled.
        limits: how many examples of each split are labelled; training examples user by user.
    """

    llm: str = DEFAULT
    revision: str | None = None
    seed: int = 0
    limits: Limits = Limits()

    def method(self) -> RetrievalSettings:
        """Return the settings of the method alone."""
        return RetrievalSettings.model_validate({name: getattr(self, name) for name in RetrievalSettings.model_fields})


class EncoderTeacher(Strict):
    """A sentence encoder: item vectors, no labels.

    Attributes:
        model: short name of a packaged model, a directory, or a name on the Hugging Face hub.
        batch_size: titles at a time.
    """

    kind: Literal["encoder"] = "encoder"
    model: str = "minilm"
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


class ReferenceTeacher(Strict):
    """Counting as a teacher: cheap labels to compare with, or to try the rest with.

    Attributes:
        reference: which one.
        vectors: knowledge directory whose item vectors a reference by text needs; None lets `model` make them.
        model: sentence encoder for a reference by text: packaged model, directory, or a name on the hub.
        train_on: which sequences the reference is fitted to, and which training examples are labelled.
        folds: training examples are labelled by a reference that was fitted to the users of the other folds; 1 for one
            reference that has counted the answers, too.
        depth: items that a label lists, K.
        limits: how many examples of each split are labelled, the first in time.
    """

    kind: Literal["reference"] = "reference"
    reference: ReferenceSettings = ItemKNNSettings()
    vectors: Path | None = None
    model: str = "minilm"
    train_on: TrainOn = "before-cut"
    folds: PositiveInt = 5
    depth: PositiveInt = 100
    limits: Limits = Limits()


class KnowledgeSource(Strict):
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


class MergedTeacher(Strict):
    """Several teachers as one, by calibrated confidence; see `merge`.

    Attributes:
        sources: directories, and teachers that are taught first, in directories beside the merged one. A teacher of
            item vectors or texts has no labels to merge.
        vectors: item vectors of the `first` source that has some, or of all, `concatenated`.
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


class TeacherChoice(Strict):
    """The `[teacher]` table of an experiment."""

    teacher: TeacherSettings

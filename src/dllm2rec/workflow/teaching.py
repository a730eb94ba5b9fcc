"""Verb `teach`: a teacher labels a dataset."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter, ValidationError

from dllm2rec.core.errors import UserError, first_problem
from dllm2rec.core.files import exclusive, hash_json, is_of_files, read_json, require_fresh_directory
from dllm2rec.core.progress import Say
from dllm2rec.data import Dataset, Examples
from dllm2rec.evaluation.references import with_text_weight
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.schema import MARKER
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.teacher import (
    BigRecTeacher,
    EncoderTeacher,
    KnowledgeSource,
    LabellingTeacher,
    MergedTeacher,
    ReferenceTeacher,
    RetrievalTeacher,
    Source,
    TeacherSettings,
    TextTeacher,
    method_of,
)
from dllm2rec.teachers.bigrec import BigRecSettings, take_over, teach_bigrec
from dllm2rec.teachers.encoder import continue_vectors, teach_encoder
from dllm2rec.teachers.merging import MERGED, merge
from dllm2rec.teachers.reference_teacher import label_with_reference
from dllm2rec.teachers.references import BlendSettings, needs_vectors
from dllm2rec.teachers.retrieval import RetrievalSettings, teach_retrieval
from dllm2rec.teachers.texts import WritingSettings, teach_texts
from dllm2rec.workflow.budget import counted, selection, within_reach
from dllm2rec.workflow.labelling import DONE, directory_name, encoder_of, finish, finished, request, taught_by


def teach(dataset: Dataset, settings: TeacherSettings, *, out: Path, say: Say = lambda _: None) -> Knowledge:
    """Let a teacher label a dataset.

    Asked for the same again, it returns what is there; interrupted, it goes on.

    Args:
        dataset: to be labelled.
        settings: which teacher, and how much it labels.
        out: the knowledge directory.
        say: told in words that labels of another rule are there.

    Raises:
        UserError: the model can't be had, a limit exceeds a split, something else is at ``out``, or another process is
            teaching there.
    """
    values = settings.model_dump(mode="json")
    asked = request(dataset, values)
    with exclusive(out):
        knowledge = finished(out, asked)
        if knowledge is None:
            if isinstance(settings, LabellingTeacher):
                _tell_of_two_rules(settings, out, say)
            knowledge = _teach(dataset, settings, out)
            taken = settings.vectors if isinstance(settings, ReferenceTeacher) else None
            finish(out, asked, values, encoder=None if taken is None else encoder_of(Knowledge.load(taken)))
    return knowledge


def teach_only_new(dataset: Dataset, known: Knowledge, *, out: Path) -> Knowledge:
    """Let the teacher of a dataset label what an extension of that dataset adds; what it said before is taken over.

    A language model is not tuned again: it labels and reads titles as it did. A limit counts among the examples of
    ``dataset``, where there are as many, and what was chosen of them is labelled where it was not; vectors that the
    choice read are of the old dataset, so it does without where they are not the teacher's own.

    Args:
        dataset: an extension (see `extend`) of the dataset that ``known`` was made of.
        known: from `teach`.
        out: the knowledge directory of ``dataset``; interrupted, it goes on.

    Raises:
        UserError: ``known`` is of no dataset that ``dataset`` extends, is merged, does not say who taught it, or its
            teacher can't go on.
    """
    if known.manifest.teacher == MERGED:
        raise UserError(
            f"{known.path}: merged from several teachers; teach what is new with --only-new from each of its sources, "
            "and merge again"
        )
    if known.manifest.dataset_hash not in dataset.manifest.extends:
        raise UserError(
            f"{known.path}: knowledge of another dataset (content hash {known.manifest.dataset_hash}) than those that "
            f"{dataset.path} goes on from ({', '.join(dataset.manifest.extends) or 'none'})"
        )
    values, described = taught_by(known, dataset)
    try:
        settings: TeacherSettings = TypeAdapter(TeacherSettings).validate_python(values)
    except ValidationError as error:
        raise UserError(
            f"{known.path}: {first_problem(error)}; who taught it is of another version or damaged, teach again"
        ) from None
    asked: dict[str, JsonValue] = {"dataset": dataset.content_hash, "teacher": described}
    with exclusive(out):
        knowledge = finished(out, asked)
        if knowledge is None:
            knowledge = _teach_only_new(dataset, settings, known, out)
            finish(out, asked, values, encoder=encoder_of(known))
    return knowledge


def _teach(dataset: Dataset, settings: TeacherSettings, out: Path) -> Knowledge:
    settings = counted(dataset, settings)
    match settings:
        case BigRecTeacher():
            return teach_bigrec(
                dataset,
                llm=settings.llm,
                out=out,
                selection=selection(dataset, settings, item_vectors=vectors_named(dataset, settings)),
                settings=method_of(settings, BigRecSettings),
                seed=settings.seed,
                revision=settings.revision,
            )
        case RetrievalTeacher():
            return teach_retrieval(
                dataset,
                llm=settings.llm,
                out=out,
                limits=settings.limits.by_split(),
                settings=method_of(settings, RetrievalSettings),
                seed=settings.seed,
                revision=settings.revision,
            )
        case EncoderTeacher():
            return teach_encoder(dataset, out=out, model=settings.model, words=settings.words)
        case TextTeacher():
            return teach_texts(
                dataset,
                llm=settings.llm,
                out=out,
                counts=settings.counts,
                settings=method_of(settings, WritingSettings),
                seed=settings.seed,
                revision=settings.revision,
            )
        case ReferenceTeacher():
            return _teach_reference(dataset, settings, out)
        case MergedTeacher():
            sources = [_source(dataset, source, out) for source in settings.sources]
            return merge(dataset, sources, out=out, depth=settings.depth, vectors=settings.vectors)


def _tell_of_two_rules(settings: LabellingTeacher, out: Path, say: Say) -> None:
    """Say that the finished labels at ``out``, to which others are added, were chosen otherwise."""
    before = read_json(out / DONE).get("settings", {}) if (out / DONE).is_file() else {}
    rule = before.get("choose", settings.choose)
    if rule != settings.choose and settings.limits.train and before["limits"]["train"]:
        say(
            f"{out}: holds labels of examples that were chosen by '{rule}', to which those that '{settings.choose}' "
            "chooses are added; for these alone, choose another --out"
        )


def _teach_reference(dataset: Dataset, settings: ReferenceTeacher, out: Path) -> Knowledge:
    vectors = vectors_named(dataset, settings)
    if vectors is not None or not needs_vectors(settings.reference):
        return _label(dataset, settings, vectors, out)
    with _encoded(dataset, settings, out) as vectors:
        return _label(dataset, settings, vectors, out)


def _label(dataset: Dataset, settings: ReferenceTeacher, vectors: NDArray[np.float32] | None, out: Path) -> Knowledge:
    return label_with_reference(
        dataset,
        with_text_weight(settings.reference, dataset, item_vectors=vectors, train_on=settings.train_on),
        examples=_together(dataset, settings, vectors),
        out=out,
        item_vectors=vectors,
        train_on=settings.train_on,
        folds=settings.folds,
        depth=settings.depth,
    )


@contextmanager
def _encoded(dataset: Dataset, settings: ReferenceTeacher, out: Path) -> Iterator[NDArray[np.float32] | None]:
    """Yield the text vectors of all items; an interruption of what follows, or a full disk, keeps them.

    Raises:
        UserError: the model can't be had, or something else is at ``out``.
    """
    require_fresh_directory(out, marker=MARKER)
    kept = out / f".titles-{hash_json([dataset.content_hash, settings.model, settings.words])[:8]}.tmp"
    try:
        yield teach_encoder(dataset, out=kept, model=settings.model, words=settings.words).item_vectors
    except UserError as error:
        if is_of_files(error) and kept.exists():
            raise
        shutil.rmtree(kept, ignore_errors=True)
        with suppress(OSError):  # what was refused leaves nothing
            out.rmdir()
        raise
    shutil.rmtree(kept)


def _source(dataset: Dataset, settings: Source, out: Path) -> Knowledge:
    """Read or teach what is merged."""
    if isinstance(settings, KnowledgeSource):
        return Knowledge.load(settings.path)
    asked = request(dataset, settings.model_dump(mode="json"))
    return teach(dataset, settings, out=out.parent / directory_name(asked))


def _teach_only_new(dataset: Dataset, settings: TeacherSettings, known: Knowledge, out: Path) -> Knowledge:
    settings = within_reach(dataset, counted(dataset, settings))
    match settings:
        case BigRecTeacher():
            take_over(known, dataset, out=out)
            return _teach(dataset, settings.model_copy(update={"vectors": None, "depth": known.manifest.depth}), out)
        case EncoderTeacher():
            return teach_encoder(dataset, out=out, model=settings.model, words=settings.words, known=known.item_vectors)
        case RetrievalTeacher():
            raise UserError(
                f"{known.path}: its heads are fitted to all that it labels; teach the extension anew, without "
                "--only-new"
            )
        case TextTeacher():
            raise UserError(
                f"{known.path}: texts about users name the rows of the old dataset; teach the extension anew, without "
                "--only-new"
            )
        case ReferenceTeacher():
            vectors = None
            if known.item_vectors is not None:
                vectors = _grown(dataset, known, known.item_vectors)
            reference = settings.reference
            if isinstance(reference, BlendSettings):  # of one weight with what it said before
                weight = known.manifest.settings["text_weight"]
                reference = reference.model_copy(update={"text_weight": weight})
            return label_with_reference(
                dataset,
                reference,
                examples=_together(dataset, settings, vectors),
                out=out,
                item_vectors=vectors,
                train_on=settings.train_on,
                folds=settings.folds,
                depth=known.manifest.depth,  # which a small catalogue cut
                known=known.labels,
            )
        case MergedTeacher():
            raise AssertionError("teach_only_new refuses merged knowledge")


def _grown(dataset: Dataset, known: Knowledge, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add the text vectors of the new items, by the encoder that made those of the others."""
    titles = dataset.titles[len(vectors) :]
    if not titles:
        return vectors
    encoder = encoder_of(known)
    if encoder is None:
        raise UserError(
            f"{known.path}: nothing says which sentence encoder made its item vectors, and {len(titles):,} new items "
            "have none; teach the extension anew, with --model (or with --vectors of its own items)"
        )
    return continue_vectors(vectors, dataset.titles, model=encoder)


def _together(dataset: Dataset, settings: ReferenceTeacher, vectors: NDArray[np.float32] | None) -> Examples:
    """The chosen examples of all splits, back to back."""
    return Examples.join(list(selection(dataset, settings, item_vectors=vectors).values()))


def vectors_named(dataset: Dataset, settings: LabellingTeacher) -> NDArray[np.float32] | None:
    """The item vectors that the settings name; None where they name none.

    Raises:
        UserError: there are none at that place.
    """
    if settings.vectors is None:
        return None
    knowledge = Knowledge.load(settings.vectors)
    require_same_dataset(knowledge, dataset)
    if knowledge.item_vectors is None:
        raise UserError(
            f"{settings.vectors}: has no item vectors; name knowledge that `dllm2rec teach --teacher encoder` made"
        )
    return knowledge.item_vectors

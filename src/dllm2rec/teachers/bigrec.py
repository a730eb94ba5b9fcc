"""BIGRec (Bao et al. 2023), the teacher of DLLM2Rec: tune, write titles, ground them, and lay the labels on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, PositiveInt

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, hash_json
from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.core.settings import Settings
from dllm2rec.data import Dataset, Examples
from dllm2rec.data.splits import Split
from dllm2rec.knowledge.schema import MARKER, KnowledgeManifest, Labels
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter
from dllm2rec.teachers.choosing import random
from dllm2rec.teachers.cost import note
from dllm2rec.teachers.generation import TitleTrie, Written, write
from dllm2rec.teachers.grounding import Grounding, text_states
from dllm2rec.teachers.llm import LanguageModel, load_llm
from dllm2rec.teachers.lora import ADAPTER, load_adapter
from dllm2rec.teachers.prompts import Prompts
from dllm2rec.teachers.tuning import TuningSettings


class BigRecSettings(Settings):
    """How BIGRec is tuned and how it labels.

    Attributes:
        max_titles: newest titles of a history in a prompt.
        title_tokens: longest title, in tokens, read or written; longer ones are cut.
        prompt_tokens: longest prompt, in tokens; the oldest titles go first.
        tuning: see `TuningSettings`.
        beams: 1 writes greedily; the original searches with 4.
        constrained: keep the writing to titles of the catalogue.
        depth: items that a label lists, K.
        batch_size: prompts that are read at once.
        shard_size: labels a shard, which is the most that a killed run loses.
    """

    kind: Literal["bigrec"] = "bigrec"
    max_titles: PositiveInt = 10
    title_tokens: Annotated[int, Field(ge=2)] = 32
    prompt_tokens: Annotated[int, Field(ge=64)] = 512
    tuning: TuningSettings = TuningSettings()
    beams: PositiveInt = 1
    constrained: bool = False
    depth: PositiveInt = 100
    batch_size: PositiveInt = 64
    shard_size: PositiveInt = 256


def teach_bigrec(
    dataset: Dataset,
    *,
    llm: str,
    out: Path,
    selection: Mapping[Split, Examples],
    settings: BigRecSettings,
    seed: int,
    revision: str | None = None,
) -> Knowledge:
    """Make knowledge: tune a language model on training examples and let it label examples.

    Started again after any interruption it goes on where it was and ends with the same labels. A greater selection
    later keeps the labels that are there and adds to them.

    Args:
        dataset: to be labelled.
        llm: see `load_llm`.
        out: knowledge directory.
        selection: examples of each split to label, in this order.
        settings: see there.
        seed: of the tuning.
        revision: of a hub name.

    Raises:
        UserError: the language model can't be had, or ``out`` holds something else.
    """
    settings = settings.model_copy(update={"depth": min(settings.depth, dataset.num_items)})
    model = load_llm(llm, revision=revision)
    manifest = _manifest(dataset, model, settings, seed)
    prompts = _prompts(model, dataset, settings)
    writer = KnowledgeWriter(out, manifest) if (out / MARKER).exists() else None  # refuse others before any work
    work = out.parent / f".{out.name}.tuning-{hash_json(manifest.model_dump(mode='json'))}"
    finished = (out / ADAPTER).exists()
    model = _tuned(model, dataset, prompts, settings, work=out if finished else work, seed=seed)
    if writer is None or not writer.has_item_vectors():
        read = _read_catalogue(model, prompts)
        writer = writer or KnowledgeWriter(out, manifest)
        writer.write_item_vectors(read)
    vectors = Knowledge.load(out).item_vectors
    assert vectors is not None  # noqa: S101 - they are there
    if (work / ADAPTER).exists():
        (work / ADAPTER).replace(out / ADAPTER)
    shutil.rmtree(work, ignore_errors=True)
    labeller = Labeller(model, dataset, prompts, vectors, settings)
    _label_all(writer, labeller, selection, settings.shard_size)
    return Knowledge.load(out)


def take_over(known: Knowledge, dataset: Dataset, *, out: Path) -> None:
    """Begin knowledge of an extended dataset with what a tuned language model said of the old one.

    `teach_bigrec` then tunes nothing and labels what is new. Nothing happens where ``out`` has begun.

    Args:
        known: of a dataset whose items are the first of ``dataset``.
        dataset: the extension.
        out: knowledge directory of ``dataset``.

    Raises:
        UserError: the language model can't be had any more, or ``out`` holds something else.
    """
    if (out / MARKER).exists():
        return
    manifest = known.manifest
    vectors = known.item_vectors
    assert vectors is not None  # noqa: S101 - BIGRec always gives them
    settings = BigRecSettings.model_validate(manifest.settings)
    tuned = settings.tuning.examples > 0
    if tuned and not (known.path / ADAPTER).exists():
        raise UserError(f"{known.path}: lacks {ADAPTER}/, what its language model was tuned to; copy it there as well")
    llm = load_llm(manifest.model, revision=manifest.revision)
    if tuned:
        llm = load_adapter(llm, known.path)
    prompts = _prompts(llm, dataset, settings)
    new = text_states(llm, [prompts.grounded(title) for title in prompts.titles[len(vectors) :]])
    with atomic_path(out) as target:
        manifest = manifest.model_copy(update={"dataset_hash": dataset.content_hash, "num_items": dataset.num_items})
        writer = KnowledgeWriter(target, manifest)
        writer.write_item_vectors(np.concatenate([vectors, new.reshape(-1, vectors.shape[1])]))
        writer.append(known.labels)
        if tuned:
            shutil.copytree(known.path / ADAPTER, target / ADAPTER)


class Labeller:
    """A tuned language model that labels examples.

    Args:
        llm: the tuned language model.
        dataset: whose catalogue is ranked.
        prompts: how histories are told.
        item_vectors: `[V, D]`, states of the titles.
        settings: see there.
    """

    def __init__(
        self,
        llm: LanguageModel,
        dataset: Dataset,
        prompts: Prompts,
        item_vectors: NDArray[np.float32],
        settings: BigRecSettings,
    ) -> None:
        self._llm, self._prompts, self._settings = llm, prompts, settings
        keys = [tuple(title) for title in prompts.titles]
        self._grounding = Grounding(item_vectors, titles=keys, train_counts=dataset.train_counts())
        (end,) = prompts.newline
        self._trie = TitleTrie(keys, end=end) if settings.constrained else None
        stop = llm.tokenizer.eos_token_id
        self._ends = [end] if stop is None else [end, int(stop)]

    def label(self, examples: Examples) -> tuple[Labels, list[int]]:
        """Label examples; also returns the ids of those whose text came to no end within the limit of tokens."""
        settings, prompts = self._settings, self._prompts
        written: list[Written] = write(
            self._llm,
            [prompts.rest(history) for history in examples.history],
            prefix=prompts.prefix,
            ends=self._ends,
            max_new_tokens=settings.title_tokens + 1,
            batch_size=settings.batch_size,
            beams=settings.beams,
            trie=self._trie,
        )
        states = text_states(self._llm, [prompts.grounded(one.tokens) for one in written])
        grounded = self._grounding.rank(states, depth=settings.depth)
        labels = Labels(
            example_id=examples.example_id,
            ranked_items=grounded.ranked_items,
            distances=grounded.distances,
            target_distance=self._grounding.distance(states, examples.target),
            generated_text=[prompts.text(one.tokens) for one in written],
        )
        ids = examples.example_id.tolist()
        return labels, [identity for identity, one in zip(ids, written, strict=True) if not one.finished]


def _prompts(model: LanguageModel, dataset: Dataset, settings: BigRecSettings) -> Prompts:
    return Prompts(
        model.tokenizer,
        dataset.titles,
        max_titles=settings.max_titles,
        title_tokens=settings.title_tokens,
        prompt_tokens=settings.prompt_tokens,
    )


def _manifest(dataset: Dataset, model: LanguageModel, settings: BigRecSettings, seed: int) -> KnowledgeManifest:
    described: dict[str, JsonValue] = settings.model_dump(mode="json", exclude={"shard_size", "batch_size"})
    return KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="bigrec",
        model=model.name,
        revision=model.revision,
        seed=seed,
        settings=described,
        depth=settings.depth,
        vector_size=int(model.model.config.get_text_config().hidden_size),
    )


def tuning_examples(dataset: Dataset, settings: BigRecSettings, *, seed: int) -> Examples:
    """Return the training examples that the language model is tuned on."""
    train = dataset.examples("train")
    return train.take(random(train, seed=seed, purpose="tuning")[: settings.tuning.examples])


def _tuned(
    model: LanguageModel, dataset: Dataset, prompts: Prompts, settings: BigRecSettings, *, work: Path, seed: int
) -> LanguageModel:
    if settings.tuning.examples == 0:
        return model
    from dllm2rec.teachers.trainer import tune

    train, validation = tuning_examples(dataset, settings, seed=seed), dataset.examples("validation")
    drawn = random(validation, seed=seed, purpose="tuning")
    validation = validation.take(drawn[: settings.tuning.validation_examples])
    return tune(
        model,
        train=_texts(prompts, train),
        validation=_texts(prompts, validation),
        settings=settings.tuning,
        work=work,
        seed=seed,
    )


def _texts(prompts: Prompts, examples: Examples) -> list[tuple[list[int], list[int]]]:
    pairs = zip(examples.history, examples.target.tolist(), strict=True)
    return [(prompts.prompt(history), prompts.answer(target)) for history, target in pairs]


def _read_catalogue(model: LanguageModel, prompts: Prompts) -> NDArray[np.float32]:
    """Return the item vectors, `[V, D]`: the states of the titles."""
    with progress_bar("reading the catalogue", len(prompts.titles)) as advance:
        vectors = text_states(model, [prompts.grounded(title) for title in prompts.titles], advance=advance)
    if not np.isfinite(vectors).all():
        raise UserError(
            f"{model.name}: its states are not finite after tuning; lower tuning.learning_rate, or take another model"
        )
    return vectors


def _label_all(
    writer: KnowledgeWriter, labeller: Labeller, selection: Mapping[Split, Examples], shard_size: int
) -> None:
    total = sum(map(len, selection.values()))
    labelled = set(writer.labelled_ids().tolist())
    done = sum(int(np.isin(examples.example_id, list(labelled)).sum()) for examples in selection.values())
    if done == total:
        return
    with progress_bar("labelling", total, completed=done) as advance:
        for shard in _shards(selection, labelled, shard_size):
            _label_shard(writer, labeller, shard, advance)


def _shards(selection: Mapping[Split, Examples], labelled: set[int], size: int) -> Iterator[Examples]:
    """Cut at fixed places, so that a run that resumes reads the same batches and writes the same labels."""
    for examples in selection.values():
        for start in range(0, len(examples), size):
            part = examples.take(np.arange(start, min(start + size, len(examples))))
            part = part.take(np.array([value not in labelled for value in part.example_id.tolist()], dtype=bool))
            if len(part):
                yield part


def _label_shard(writer: KnowledgeWriter, labeller: Labeller, shard: Examples, advance: Advance) -> None:
    start = time.perf_counter()
    labels, unfinished = labeller.label(shard)
    writer.append(labels)
    note(writer.path, len(shard), time.perf_counter() - start, unfinished)
    advance(len(shard))

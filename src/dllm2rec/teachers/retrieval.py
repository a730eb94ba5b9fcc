"""A teacher that does not have to write: a language model reads a history once, and every title in it is a query.

BIGRec writes a title token by token, for one position, only to look up where it lies. Here the state after each title
of a history is the query for what comes next; items are read by the same language model, a title each. LoRA brings
both together (`retrieval_tuning.py`), and two linear maps fitted to all that was read make the ranking
(`contrastive.py`). One pass labels every position of a user, to any depth, with a probability for each item.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from scipy.optimize import minimize_scalar

from dllm2rec.core.arrays import evenly
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, hash_json
from dllm2rec.core.progress import progress_bar
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.core.settings import Settings
from dllm2rec.core.tensors import best_items
from dllm2rec.data import Dataset, Examples, Split
from dllm2rec.knowledge.schema import MARKER, KnowledgeManifest, Labels
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter
from dllm2rec.teachers.contrastive import Heads, HeadSettings, first_heads, fit_heads, hard_negatives
from dllm2rec.teachers.cost import note, noted
from dllm2rec.teachers.llm import LanguageModel, load_llm
from dllm2rec.teachers.lora import ADAPTER
from dllm2rec.teachers.reading import Floats, Lines, item_states, read_sequences
from dllm2rec.teachers.retrieval_plan import Plan, left_to_label, make_plan, of_users, user_order
from dllm2rec.teachers.retrieval_tuning import RetrievalTuningSettings, tune_reader

NOTED = "noted"
"""In the working directory: what reading took stands beside the labels."""
_ENOUGH, _CALIBRATED = 100, 2000
_SCORES_AT_ONCE = 1 << 24


class RetrievalSettings(Settings):
    """How a retrieval teacher reads, learns and labels.

    Attributes:
        max_titles: most titles that are read at once.
        title_tokens: longest title, in tokens; longer ones are cut.
        tuning: see `RetrievalTuningSettings`.
        heads: see `HeadSettings`.
        folds: training examples are labelled by heads that were fitted to the users of the other folds; 1 for heads
            that have seen the answers, too.
        depth: items that a label lists, K.
        shard_size: labels a shard.
    """

    kind: Literal["retrieval"] = "retrieval"
    max_titles: Annotated[int, Field(ge=2)] = 12
    title_tokens: Annotated[int, Field(ge=2)] = 24
    tuning: RetrievalTuningSettings = RetrievalTuningSettings()
    heads: HeadSettings = HeadSettings()
    folds: PositiveInt = 5
    depth: PositiveInt = 100
    shard_size: PositiveInt = 4096


def teach_retrieval(
    dataset: Dataset,
    *,
    llm: str,
    out: Path,
    limits: Mapping[Split, int | None],
    settings: RetrievalSettings,
    seed: int,
    revision: str | None = None,
) -> Knowledge:
    """Make knowledge: a language model is tuned to read histories, reads them, and labels every position.

    Distances are ``-log p`` with p a probability over the catalogue, calibrated by one temperature on the validation
    examples that are labelled, where there are at least a hundred. Training examples are those before the cut. Whoever
    was read in tuning gets no label on training examples, and the rest is labelled out of fold; only how often items
    were chosen, which the tuning corrects for, is counted over all users. Started again after any interruption it goes
    on where it was and ends with the same labels.

    Args:
        dataset: to be labelled.
        llm: see `load_llm`.
        out: knowledge directory.
        limits: how many examples of each split to label; None means all. Training examples come user by user.
        settings: see there.
        seed: of the tuning, the heads, and of whose examples are labelled first.
        revision: of a hub name.

    Raises:
        UserError: the language model can't be had, ``out`` holds something else, or a limit exceeds the split.
    """
    settings = settings.model_copy(update={"depth": min(settings.depth, dataset.num_items)})
    order = user_order(dataset, seed)
    tuned = order[: settings.tuning.sequences]
    plan = make_plan(dataset, limits, left_to_label(order, len(tuned)), seed)
    model = load_llm(llm, revision=revision)
    manifest = _manifest(dataset, model, settings, seed, plan)
    work = out.parent / f".{out.name}.reading-{hash_json(manifest.model_dump(mode='json'))}"
    known = (out / MARKER).exists()
    writer = KnowledgeWriter(out, manifest) if known else None  # refuse other knowledge before any work
    if writer is not None and plan.done(writer.labelled_ids()):
        shutil.rmtree(work, ignore_errors=True)
        return Knowledge.load(out)
    read = _read(dataset, model, plan, tuned, settings, work=work, seed=seed)
    labeller = _Labeller(dataset, read, plan, settings, seed)
    writer = writer or KnowledgeWriter(out, manifest)
    if not writer.has_item_vectors():
        writer.write_item_vectors(labeller.item_vectors)
    if (work / ADAPTER).exists() and not (out / ADAPTER).exists():
        with atomic_path(out / ADAPTER) as target:
            shutil.copytree(work / ADAPTER, target)
    if not (work / NOTED).exists():  # reading that goes on, or labelling, does not count twice
        note(out, 0, read.seconds, [])
        (work / NOTED).touch()
    _label_all(writer, labeller, plan, settings.shard_size)
    shutil.rmtree(work, ignore_errors=True)
    return Knowledge.load(out)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What a language model read.

    Attributes:
        items: `[V, D]`.
        rows: `[N]`, sorted rows of events.
        states: `[N, D]`, after each.
        seconds: that reading histories took, also in runs that were cut off.
    """

    items: Floats
    rows: NDArray[np.int64]
    states: NDArray[np.float16]
    seconds: float

    def after(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the states after events."""
        found: NDArray[np.float16] = self.states[np.searchsorted(self.rows, rows)]
        return found


def _read(
    dataset: Dataset,
    model: LanguageModel,
    plan: Plan,
    tuned: NDArray[np.int64],
    settings: RetrievalSettings,
    *,
    work: Path,
    seed: int,
) -> _Read:
    lines = Lines(model.tokenizer, dataset.titles, title_tokens=settings.title_tokens)
    if len(tuned):
        model = _tuned(dataset, model, lines, tuned, settings, work=work, seed=seed)
    items = _items(model, lines, work / "items.npy")
    states = read_sequences(
        model, lines, dataset.sequences(), plan.read, max_titles=settings.max_titles, work=work / "states"
    )
    return _Read(items=items, rows=plan.read, states=states, seconds=noted(work / "states").get("seconds", 0.0))


def _tuned(
    dataset: Dataset,
    model: LanguageModel,
    lines: Lines,
    tuned: NDArray[np.int64],
    settings: RetrievalSettings,
    *,
    work: Path,
    seed: int,
) -> LanguageModel:
    items = _items(model, lines, work / "items-before.npy")
    counts = dataset.train_counts("before-cut")
    competing = torch.from_numpy(np.flatnonzero(counts))
    states = torch.from_numpy(items)
    return tune_reader(
        model,
        lines=lines,
        sequences=dataset.training_sequences("before-cut"),
        users=tuned,
        heads=first_heads(states=states, queries=items, counts=counts, settings=settings.heads, seed=seed),
        competing=competing,
        near=hard_negatives(states, competing, settings.heads.hard),
        negatives=settings.heads.negatives,
        max_titles=settings.max_titles,
        leave_history=dataset.training_examples("before-cut").repeats_are_rare,
        settings=settings.tuning,
        work=work,
        seed=seed,
    )


def _items(model: LanguageModel, lines: Lines, file: Path) -> Floats:
    """Read the catalogue, or take what was read before."""
    if not file.is_file():
        states = item_states(model, lines)
        if not np.isfinite(states).all():
            raise UserError(
                f"{model.name}: its states are not finite; lower tuning.learning_rate, or take another model"
            )
        with atomic_path(file) as target:
            np.save(target, states)
    found: Floats = np.load(file, allow_pickle=False)
    return found


class _Labeller:
    """Heads for each fold and for all, and what they say of examples."""

    def __init__(self, dataset: Dataset, read: _Read, plan: Plan, settings: RetrievalSettings, seed: int) -> None:
        self._read, self._plan, self._settings = read, plan, settings
        self._sequences, self._num_items = dataset.training_sequences("before-cut"), dataset.num_items
        self._states = torch.from_numpy(read.items)
        self._seed = seed
        self._embedded: tuple[Heads, torch.Tensor, torch.Tensor] | None = None
        self._leave_history = dataset.training_examples("before-cut").repeats_are_rare
        self.fold = numpy_generator(seed, "folds").integers(0, settings.folds, dataset.manifest.num_users)
        self._all = self._fit(np.ones(dataset.manifest.num_users, bool), "fitting heads")
        self.temperature = self._calibrated()

    @property
    def item_vectors(self) -> Floats:
        """`[V, size]`, in the space of the queries."""
        with torch.inference_mode():
            vectors: Floats = self._all.embed().numpy()
        return vectors

    def heads(self, fold: int) -> Heads:
        """Fit heads without the users of a fold; -1 means the heads for all."""
        if fold < 0:
            return self._all
        return self._fit(self.fold != fold, f"fitting heads, fold {fold + 1} of {self._settings.folds}")

    def label(self, heads: Heads, split: Split, places: NDArray[np.int64]) -> Labels:
        """Label examples of a split, by place."""
        examples = self._plan.examples[split].take(places)
        listed, distances, own, start = [], [], [], 0
        for part in _parts(places, max(1, _SCORES_AT_ONCE // self._num_items)):
            log_p = torch.log_softmax(self._scores(heads, split, part) / self.temperature, dim=1)
            items = best_items(log_p, self._settings.depth)
            listed.append(items.numpy())
            distances.append(-log_p.gather(1, items.long()).numpy())
            target = examples.target[start : start + len(part)]
            own.append(-log_p.numpy()[np.arange(len(part)), target])
            start += len(part)
        return Labels(
            example_id=examples.example_id,
            ranked_items=np.concatenate(listed),
            distances=np.concatenate(distances),
            target_distance=np.concatenate(own),
            generated_text=[""] * len(examples),
        )

    def _fit(self, users: NDArray[np.bool_], told: str) -> Heads:
        """Fit heads to some users; what the others chose is not even counted."""
        train = self._plan.examples["train"]
        kept = users[train.user]
        counts = np.bincount(self._sequences.of(users).items, minlength=self._num_items)
        competing = torch.from_numpy(np.flatnonzero(counts))
        return fit_heads(
            states=self._states,
            queries=self._read.after(self._plan.rows["train"][kept]),
            target=train.target[kept],
            counts=counts,
            near=hard_negatives(self._states, competing, self._settings.heads.hard),
            settings=self._settings.heads,
            seed=self._seed,
            history=train.history[kept] if self._leave_history else None,
            told=told,
        )

    def _calibrated(self) -> float:
        """Return the temperature under which the true items of validation are likeliest; 1 where there are too few."""
        validation = self._plan.examples["validation"]
        if len(validation) < _ENOUGH:
            return 1.0
        places = np.flatnonzero(~validation.repeats) if self._leave_history else np.arange(len(validation))
        most = max(_ENOUGH, min(_CALIBRATED, _SCORES_AT_ONCE // self._num_items))
        places = places[evenly(most, len(places))]
        scores = self._scores(self._all, "validation", places)
        target = torch.from_numpy(validation.target[places].astype(np.int64))

        def loss(log_temperature: float) -> float:
            return float(torch.nn.functional.cross_entropy(scores / np.exp(log_temperature), target))

        return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 5.0), method="bounded").x))

    @torch.inference_mode()
    def _scores(self, heads: Heads, split: Split, places: NDArray[np.int64]) -> torch.Tensor:
        """Score the catalogue for examples of a split, `[n, V]`; what a history holds is as good as left out."""
        states = self._read.after(self._plan.rows[split][places]).astype(np.float32)
        if self._embedded is None or self._embedded[0] is not heads:
            self._embedded = heads, heads.embed().T, heads.bias()
        _, vectors, bias = self._embedded
        scores = heads.queries(torch.from_numpy(states)) @ vectors + bias
        if not self._leave_history:
            return scores
        history = torch.from_numpy(self._plan.examples[split].history[places].astype(np.int64))
        padded = torch.nn.functional.pad(scores, (0, 1))
        return padded.scatter(1, history, scores.amin(dim=1, keepdim=True).expand(-1, history.shape[1]))[:, :-1]


def labelled_in_training(dataset: Dataset, settings: RetrievalSettings, *, seed: int) -> Examples:
    """Return the training examples that a limit chooses from: those of users that the tuning does not read.

    Args:
        dataset: to be labelled.
        settings: of the teacher.
        seed: see `teach_retrieval`.
    """
    users = left_to_label(user_order(dataset, seed), settings.tuning.sequences)
    return of_users(dataset.training_examples("before-cut"), users, None)


def _label_all(writer: KnowledgeWriter, labeller: _Labeller, plan: Plan, shard_size: int) -> None:
    """Label split by split, training examples fold by fold; what has a label is left alone."""
    labelled = writer.labelled_ids()
    total = sum(map(len, plan.examples.values()))
    with progress_bar("labelling", total, completed=len(labelled)) as advance:
        for split, examples in plan.examples.items():
            waiting = np.flatnonzero(~np.isin(examples.example_id, labelled))
            fold = np.full(len(examples), -1)
            if split == "train" and labeller.fold.max(initial=0) > 0:
                fold = labeller.fold[examples.user]
            for number in np.unique(fold[waiting]).tolist():
                heads = labeller.heads(number)
                places = waiting[fold[waiting] == number]
                for part in _parts(places, shard_size):
                    start = time.perf_counter()
                    writer.append(labeller.label(heads, split, part))
                    note(writer.path, len(part), time.perf_counter() - start, [])
                    advance(len(part))


def _parts(places: NDArray[np.int64], size: int) -> Sequence[NDArray[np.int64]]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _manifest(
    dataset: Dataset, model: LanguageModel, settings: RetrievalSettings, seed: int, plan: Plan
) -> KnowledgeManifest:
    """Describe the knowledge; how much the maps were fitted to and calibrated on is part of what it says."""
    counts = {"learned_from": len(plan.examples["train"]), "calibrated_on": len(plan.examples["validation"])}
    return KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="retrieval",
        model=model.name,
        revision=model.revision,
        seed=seed,
        settings={**settings.model_dump(mode="json", exclude={"shard_size"}), **counts},
        depth=settings.depth,
        vector_size=settings.heads.size,
    )

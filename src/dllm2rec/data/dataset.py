"""The dataset: a directory with `dataset.json` and four Parquet tables, made once and then only read."""

from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, require_fresh_directory, write_json
from dllm2rec.data.directory import (
    FORMAT_VERSION,
    MARKER,
    DatasetManifest,
    read_manifest,
    read_table_file,
    write_files,
)
from dllm2rec.data.examples import Examples, Past, Sequences, pad_histories
from dllm2rec.data.log import Log
from dllm2rec.data.splits import SPLITS, Positions, Split, SplitSettings, TrainOn, sample_positions
from dllm2rec.data.tables import Tables, build_examples, build_tables, content_hash, describe, target_positions

__all__ = ["Dataset", "DatasetManifest", "write_dataset"]


class Dataset:
    """A dataset directory, opened.

    Attributes:
        path: the directory.
        manifest: what `dataset.json` says.
        items: `index`, `item_id` (external), `title` and other text; row i is item i.
    """

    path: Path
    manifest: DatasetManifest
    items: pl.DataFrame

    def __init__(self, *, path: Path, manifest: DatasetManifest, items: pl.DataFrame) -> None:
        self.path = path
        self.manifest = manifest
        self.items = items

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = False) -> "Dataset":
        """Open a dataset directory.

        Args:
            path: the directory.
            verify: also compute the content hash and the examples again and compare.

        Raises:
            UserError: not a dataset, of another format version, or damaged.
        """
        path = Path(path)
        dataset = cls(path=path, manifest=read_manifest(path), items=read_table_file(path, "items"))
        if verify:
            dataset._verify()
        return dataset

    @property
    def num_items(self) -> int:
        """Size V of the catalogue."""
        return self.manifest.num_items

    @property
    def content_hash(self) -> str:
        """The name of the content: knowledge of another dataset is refused by it."""
        return self.manifest.content_hash

    @cached_property
    def titles(self) -> list[str]:
        """The clean title of each item, by index."""
        titles: list[str] = self.items["title"].to_list()
        return titles

    def examples(self, split: Split) -> Examples:
        """Return the examples of one split, in time order."""
        return self._opened(self._examples.filter(pl.col("split") == split))

    def training_examples(self, train_on: TrainOn = "examples") -> Examples:
        """Return what a student may learn from, in time order.

        Args:
            train_on: `examples`: those of the split. `positions`: every position but the first of each training
                sequence. `before-cut`: the same of each user's events up to the cut, see `training_sequences`. All have
                the ids that the split's own examples have, so a label fits wherever it was made.
        """
        if train_on == "examples":
            return self.examples("train")
        events = read_table_file(self.path, "interactions")
        ordinal = events["ordinal"].to_numpy()
        kept = ordinal < self._training_lengths(train_on)[events["user"].to_numpy()]
        position = np.flatnonzero(kept & (ordinal > 0))
        position = position[np.argsort(events["time"].to_numpy()[position], kind="stable")]
        users = read_table_file(self.path, "users")
        history = self.manifest.history
        return self._opened(
            describe(items=self.items, users=users, interactions=events, position=position, history=history)
        )

    def training_sequences(self, train_on: TrainOn = "positions") -> Sequences:
        """Return what may be learned without examples: each user's items up to and with their last training target.

        The training targets are those before sampling; a user without one has an empty sequence. Nothing at or after a
        user's first validation or test target is in it.

        Args:
            train_on: `before-cut` adds, of every user, what happened before the first validation target of the whole
                dataset (before sampling); the others add nothing.
        """
        length = self._training_lengths(train_on)
        events = read_table_file(self.path, "interactions", "user", "item", "ordinal", "time")
        kept = events["ordinal"].to_numpy() < length[events["user"].to_numpy()]
        offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
        return Sequences(items=events["item"].to_numpy()[kept], times=events["time"].to_numpy()[kept], offsets=offsets)

    def sequences(self) -> Sequences:
        """Return all events of each user in time order, whatever the split; nothing here says what may be learned."""
        return self._sequences

    def event_rows(self, examples: Examples) -> NDArray[np.int64]:
        """Return where the target of each example, of any split of this dataset, stands in `sequences`, `[N]`.

        Raises:
            ValueError: the examples are not of a dataset.
        """
        if examples.past is None:
            raise ValueError("these examples know nothing of what stands before them; take those of a dataset")
        return examples.past.target

    @cached_property
    def user_ids(self) -> list[object]:
        """The external id of each user, by row."""
        ids: list[object] = read_table_file(self.path, "users", "user_id").to_series().to_list()
        return ids

    def training_events(self, train_on: TrainOn = "positions") -> NDArray[np.int32]:
        """Return the items of the training sequences in time order, `[M]`; see `training_sequences`."""
        return self.training_sequences(train_on).in_time()

    def train_counts(self, train_on: TrainOn = "positions") -> NDArray[np.int64]:
        """Count each item in the training sequences, `[V]`; 0 means unseen in training."""
        return np.bincount(self.training_sequences(train_on).items, minlength=self.num_items).astype(np.int64)

    def first_times(self, train_on: TrainOn = "positions") -> NDArray[np.float64]:
        """Return when the training sequences first have each item, `[V]`, seconds; infinite for what they lack."""
        sequences = self.training_sequences(train_on)
        first = np.full(self.num_items, np.inf)
        np.minimum.at(first, sequences.items, sequences.times)
        return first

    def _training_lengths(self, train_on: TrainOn) -> NDArray[np.int32]:
        """Count the events of each user that training may use; they are always the user's first."""
        length: NDArray[np.int32] = read_table_file(self.path, "users", "training_length").to_series().to_numpy()
        return np.maximum(length, self._before_cut) if train_on == "before-cut" else length

    @cached_property
    def cut(self) -> float:
        """When the first validation target was chosen, before sampling, seconds."""
        events = read_table_file(self.path, "interactions")
        first: float = events["time"].to_numpy()[self._targets["validation"]].min()
        return first

    @cached_property
    def _targets(self) -> Positions:
        """Where the targets of each part stand among the interactions, before sampling."""
        return target_positions(read_table_file(self.path, "interactions"), self.manifest.split)

    @cached_property
    def _before_cut(self) -> NDArray[np.int32]:
        """Count the events of each user that lie before the first validation target and before their own held-out ones.

        The second matters where users are not cut at one time: with leave-one-out a user of two events has a test
        target that may be older than any validation target.
        """
        events = read_table_file(self.path, "interactions")
        user, time, ordinal = (events[name].to_numpy() for name in ("user", "time", "ordinal"))
        early = np.bincount(user[time < self.cut], minlength=self.manifest.num_users)
        held_out = np.concatenate([self._targets["validation"], self._targets["test"]])
        np.minimum.at(early, user[held_out], ordinal[held_out])
        return early.astype(np.int32)

    def _opened(self, rows: pl.DataFrame) -> Examples:
        sequences, ordinal = self._sequences, rows["ordinal"].cast(pl.Int64).to_numpy()
        target = sequences.offsets[rows["user"].to_numpy()] + ordinal
        return Examples(
            example_id=rows["example_id"].to_numpy(writable=True),
            user=rows["user"].to_numpy(writable=True),
            history=pad_histories(rows["history"], self.manifest.history, self.num_items),
            target=rows["target"].to_numpy(writable=True),
            time=rows["time"].to_numpy(writable=True),
            num_items=self.num_items,
            past=Past(items=sequences.items, target=target, length=ordinal),
        )

    @cached_property
    def _sequences(self) -> Sequences:
        events = read_table_file(self.path, "interactions", "item", "ordinal", "time")
        begins = np.flatnonzero(events["ordinal"].to_numpy() == 0)
        return Sequences(
            items=events["item"].to_numpy(),
            times=events["time"].to_numpy(),
            offsets=np.append(begins, events.height).astype(np.int64),
        )

    @cached_property
    def _examples(self) -> pl.DataFrame:
        return read_table_file(self.path, "examples")

    def _verify(self) -> None:
        users, interactions = read_table_file(self.path, "users"), read_table_file(self.path, "interactions")
        split = self.manifest.split
        found = content_hash(items=self.items, users=users, interactions=interactions, split=split)
        if found != self.content_hash:
            raise UserError(
                f"{self.path}: content hash {found}, {MARKER} says {self.content_hash}; remove it and prepare it again"
            )
        kept = sample_positions(target_positions(interactions, split), split)
        examples = build_examples(
            items=self.items, users=users, interactions=interactions, kept=kept, history=split.history
        )
        if not examples.equals(self._examples):
            raise UserError(
                f"{self.path}: the examples do not follow from the interactions; remove it and prepare it again"
            )


def write_dataset(log: Log, split: SplitSettings, out: Path, *, name: str, extends: tuple[str, ...] = ()) -> Dataset:
    """Split a log and write the dataset directory, whole or not at all.

    An equal dataset that is already there is returned; of it the name alone may change, and how the log was read.

    Args:
        log: from `read_log`.
        split: how to cut it.
        out: the directory.
        name: for tables and reports.
        extends: see `DatasetManifest`.

    Raises:
        UserError: a part of the split is empty, or something else is at ``out``.
    """
    require_fresh_directory(out, marker=MARKER)
    tables = build_tables(log, split)
    manifest = _manifest(tables, split, name, extends, log)
    if (out / MARKER).exists():
        return _same_or_refuse(out, manifest)
    with atomic_path(out) as target:
        write_files(target, manifest, vars(tables))
    return Dataset.load(out)


def _manifest(tables: Tables, split: SplitSettings, name: str, extends: tuple[str, ...], log: Log) -> DatasetManifest:
    digest = content_hash(items=tables.items, users=tables.users, interactions=tables.interactions, split=split)
    return DatasetManifest(
        format_version=FORMAT_VERSION,
        content_hash=digest,
        name=name,
        split=split,
        history=split.history,
        num_users=tables.users.height,
        num_items=tables.items.height,
        num_interactions=tables.interactions.height,
        counts={part: int((tables.examples["split"] == part).sum()) for part in SPLITS},
        columns=log.columns,
        duplicates=log.duplicates,
        dropped=log.dropped,
        extends=extends,
    )


def _same_or_refuse(out: Path, manifest: DatasetManifest) -> Dataset:
    there = Dataset.load(out)
    if there.content_hash == manifest.content_hash:
        told = {name: getattr(manifest, name) for name in ("name", "columns", "duplicates", "dropped")}
        if told != {name: getattr(there.manifest, name) for name in told}:  # for the log that comes next
            write_json(out / MARKER, there.manifest.model_copy(update=told).model_dump(mode="json"))
            return Dataset.load(out)
        return there
    raise UserError(
        f"{out}: holds another dataset (content hash {there.content_hash}, this one has {manifest.content_hash}); "
        "choose another --out or remove it"
    )

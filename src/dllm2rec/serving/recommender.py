"""Recommendations from a bundle, with numpy and onnxruntime alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.serving.approximate import ApproximateIndex
from dllm2rec.serving.bundle import ENCODER, INDEX, Bundle, Floats, version_of
from dllm2rec.serving.top import Bonus, best_items, top_items

ItemId = str | int

LOADS = 3
HISTORIES_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What one history gets.

    Attributes:
        items: external ids, best first.
        titles: of them.
        scores: of them; larger is better. For a fallback they are counts.
        unknown: ids of the history that the catalogue does not know, as they came; they were left out.
        fallback: no item of the history is known, so these are the most popular items.
    """

    items: list[ItemId]
    titles: list[str]
    scores: list[float]
    unknown: list[ItemId]
    fallback: bool


class Recommender:
    """A student that serves.

    An id that the catalogue lacks is looked for in the other type, too: 103 finds "103", and "103" finds 103.

    Attributes:
        bundle: what it serves.
        version: of the bundle, twelve digits of its hash.
        approximate: whether it searches the bundle's index.

    Args:
        bundle: read and checked.
        threads: of the encoder; matrix products use those of numpy.
        approximate: search the bundle's index instead of the whole catalogue; candidates are always searched exactly.

    Raises:
        UserError: there is no index, or no library that reads it.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, approximate: bool = False) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.approximate = approximate
        self._index: dict[ItemId | None, int] = {item: row for row, item in enumerate(bundle.ids)}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._encoder = onnxruntime.InferenceSession(
                str(bundle.path / ENCODER), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of its own for each of a dozen reasons
            raise UserError(
                f"{bundle.path / ENCODER}: this machine's onnxruntime can't run it ({error}); "
                "export it again with --precision float32"
            ) from None
        self._approximate = _index(bundle) if approximate else None

    @classmethod
    def load(cls, path: Path | str, *, threads: int = 1, approximate: bool = False) -> "Recommender":
        """Load a bundle.

        Raises:
            UserError: it is none, or damaged; see `Bundle.load`.
        """
        path = Path(path).resolve()  # a link may point elsewhere before all is read
        for _ in range(LOADS):
            before = version_of(path)
            try:
                loaded = cls(Bundle.load(path), threads=threads, approximate=approximate)
            except UserError:
                if version_of(path) == before:
                    raise
            else:
                if version_of(path) == loaded.version:  # or it was replaced meanwhile, and this is of both
                    return loaded
        raise UserError(f"{path}: was replaced {LOADS} times while it was read")

    def recommend(
        self,
        histories: Sequence[Sequence[ItemId]],
        *,
        k: int = 20,
        exclude_seen: bool = False,
        candidates: Sequence[ItemId] | None = None,
    ) -> list[Recommendation]:
        """Recommend items after each history.

        Args:
            histories: external ids, oldest first, as much as is known: the newest are read, and what was chosen long
                ago may still not be wanted again.
            k: how many items; all there are where that is fewer.
            exclude_seen: leave the items of the history out.
            candidates: recommend only from these.

        Raises:
            UserError: k is less than 1, a history is a text instead of a list, or a candidate is not in the catalogue.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, not {k}")
        if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
            raise UserError('histories must be lists of ids, one list for each user: [["1", "260"]]')
        rows = None if candidates is None else self._rows(candidates)
        return [
            one
            for start in range(0, len(histories), HISTORIES_AT_ONCE)
            for one in self._recommend(histories[start : start + HISTORIES_AT_ONCE], rows, k, exclude_seen)
        ]

    def _recommend(
        self, histories: Sequence[Sequence[ItemId]], rows: NDArray[np.int64] | None, k: int, exclude_seen: bool
    ) -> list[Recommendation]:
        known = [self._known(history) for history in histories]
        best = self._best(known, rows, k=k, exclude_seen=exclude_seen)
        if not all(known):
            popular = _most_popular(self.bundle.popularity, rows, k)
            best = [found if items else popular for items, found in zip(known, best, strict=True)]
        return [
            self._recommendation(history, *found, fallback=not items)
            for history, items, found in zip(histories, known, best, strict=True)
        ]

    def identify(self, item: ItemId) -> ItemId | None:
        """Return an item's id as the catalogue has it, or None."""
        row = self._row(item)
        return None if row is None else self.bundle.ids[row]

    def knows(self, item: ItemId) -> bool:
        """Say whether the catalogue has an item."""
        return self._row(item) is not None

    def title(self, item: ItemId) -> str:
        """Return the title of an item.

        Raises:
            UserError: the catalogue does not know it.
        """
        return self.bundle.titles[self._find(item)]

    def similar(self, item: ItemId, *, k: int = 20) -> Recommendation:
        """List the items whose vectors point the same way (cosine), without the item itself.

        Of counting, it is what stood near the item, or reads alike; it may be fewer than k.

        Raises:
            UserError: the catalogue does not know the item, or k is less than 1.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, not {k}")
        row, output = self._find(item), self.bundle.output
        neighbours = self.bundle.neighbours if self.bundle.is_baseline else None
        if neighbours is None:
            scores = output @ (output[row] * self._inverse_norms[row]) * self._inverse_norms
        else:
            items, more = neighbours.near([row])
            scores = output @ output[row]
            scores[items] += more.astype(np.float32)
        scores[row] = -np.inf
        best = best_items(scores, min(k, len(scores) - 1))
        if neighbours is not None:
            best = best[scores[best] > 0]
        return self._recommendation([], best, scores[best], fallback=False)

    @cached_property
    def _inverse_norms(self) -> Floats:
        norms = np.linalg.norm(self.bundle.output, axis=1)
        inverse: Floats = (1 / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
        return inverse

    def scores(self, histories: Sequence[Sequence[ItemId]]) -> Floats:
        """Score the whole catalogue for each history, `[B, V]`; unknown items are left out."""
        known = [self._known(history) for history in histories]
        scores: Floats = self._encode(known) @ self.bundle.output.T
        if self.bundle.bias is not None:
            scores += self.bundle.bias
        for row, added in enumerate(self._added(known) or []):
            scores[row, added.items] += added.scores
        return scores

    def _added(self, known: Sequence[Sequence[int]]) -> list[Bonus] | None:
        """Return what items get on top of their scores: those that were chosen already, and their neighbours.

        None where no item gets anything.
        """
        manifest, neighbours = self.bundle.manifest, self.bundle.neighbours
        again = np.float32(manifest.again)
        read = [items[-manifest.history :] for items in known]
        chosen = [np.unique(np.array(items, np.int64)) for items in (known if manifest.ever else read)]
        if neighbours is None:
            return [Bonus(items=items, scores=np.full(len(items), again)) for items in chosen] if again else None
        added = []
        for items, again_items in zip(read, chosen, strict=True):
            near, scores = neighbours.near(items)
            found, place = np.unique(np.concatenate([near, again_items]), return_inverse=True)
            total = np.bincount(place, np.concatenate([scores, np.full(len(again_items), again)]), len(found))
            added.append(Bonus(items=found, scores=total.astype(np.float32)))
        return added

    def _encode(self, known: Sequence[Sequence[int]]) -> Floats:
        """Turn histories of rows into sequence vectors `[B, D]`."""
        manifest = self.bundle.manifest
        embedded = np.zeros((len(known), manifest.history, manifest.dim), np.float32)
        mask = np.zeros((len(known), manifest.history), np.bool_)
        for place, items in enumerate(known):
            newest = items[-manifest.history :]
            if newest:
                embedded[place, -len(newest) :] = self.bundle.input[newest]
                mask[place, -len(newest) :] = True
        given = {"embedded": embedded, "mask": mask}  # an encoder that has no use for the mask was exported without
        hidden: Floats = self._encoder.run(None, {one.name: given[one.name] for one in self._encoder.get_inputs()})[0]
        return hidden

    def _best(
        self, known: Sequence[Sequence[int]], rows: NDArray[np.int64] | None, *, k: int, exclude_seen: bool
    ) -> list[tuple[NDArray[np.int64], Floats]]:
        """Return for each history the best of ``rows`` (None: of all) and their scores, without what is banned."""
        weight, bias = self.bundle.output, self.bundle.bias
        banned = [np.array(items, np.int64) for items in known] if exclude_seen else None
        added = self._added(known)
        if rows is not None:
            weight, bias = weight[rows], None if bias is None else bias[rows]
            banned, added = _among(rows, banned), added and [one.among(rows) for one in added]
        hidden, k = self._encode(known), min(k, len(weight))
        if self._approximate is not None and rows is None:
            return self._nearly_best(self._approximate, hidden, banned, added, k)
        places, scores = top_items(hidden, weight, k=k, bias=bias, banned=banned, added=added)
        items = places if rows is None else rows[places]
        kept = np.isfinite(scores)
        return [(item[keep], score[keep]) for item, score, keep in zip(items, scores, kept, strict=True)]

    def _nearly_best(
        self,
        index: ApproximateIndex,
        hidden: Floats,
        banned: list[NDArray[np.int64]] | None,
        added: list[Bonus] | None,
        k: int,
    ) -> list[tuple[NDArray[np.int64], Floats]]:
        """Score what the index finds exactly, and return the best of it."""
        weight, bias = self.bundle.output, self.bundle.bias
        best = []
        for row in range(len(hidden)):
            lost = 0 if banned is None else len(banned[row])  # places that banned or lowered items may take
            if added is not None:
                lost = max(lost, int((added[row].scores < 0).sum()))
            items = index.search(hidden[row : row + 1], min(k + lost, len(weight)))[0]
            kept = np.sort(items[items >= 0])
            if added is not None:
                kept = np.union1d(kept, added[row].items)  # what is added to them may make them the best
            if banned is not None:
                kept = kept[~np.isin(kept, banned[row])]
            scores = weight[kept] @ hidden[row]
            if bias is not None:
                scores += bias[kept]
            if added is not None:
                more = added[row].among(kept)
                scores[more.items] += more.scores
            top = best_items(scores, min(k, len(kept)))
            best.append((kept[top], scores[top]))
        return best

    def _recommendation(
        self, history: Sequence[ItemId], rows: NDArray[np.int64], scores: Floats, *, fallback: bool
    ) -> Recommendation:
        return Recommendation(
            items=[self.bundle.ids[row] for row in rows],
            titles=[self.bundle.titles[row] for row in rows],
            scores=[float(score) for score in scores],
            unknown=[item for item in history if item not in self._index and self._row(item) is None],
            fallback=fallback,
        )

    def _rows(self, candidates: Sequence[ItemId]) -> NDArray[np.int64]:
        unknown = [item for item in candidates if not self.knows(item)]
        if unknown:
            raise UserError(
                f"candidate {unknown[0]!r}: not in the catalogue ({len(unknown)} of {len(candidates)} are not)"
            )
        return np.array(sorted(set(self._known(candidates))), np.int64)

    def _known(self, items: Sequence[ItemId]) -> list[int]:
        """Return the rows of those items that the catalogue knows; one look-up for an id that it has as it is."""
        look_up = self._index.get
        return [row for item in items if (row := look_up(item)) is not None or (row := self._row(item)) is not None]

    def _row(self, item: ItemId) -> int | None:
        row = self._index.get(item)
        return self._index.get(_other_type(item)) if row is None else row

    def _find(self, item: ItemId) -> int:
        row = self._row(item)
        if row is None:
            raise UserError(f"item {item!r}: not in the catalogue")
        return row


def _other_type(item: ItemId) -> ItemId | None:
    """Return the number that a text spells, or the text of a number; None where there is neither."""
    if not isinstance(item, str):
        return str(item) if isinstance(item, Integral) else None
    digits = item.removeprefix("-")
    number = digits.isdecimal() and digits.isascii() and len(digits) <= 20
    return int(item) if number else None


def _index(bundle: Bundle) -> ApproximateIndex:
    if not bundle.has_index:
        raise UserError(f"{bundle.path}: has no approximate index; export it with --index")
    return ApproximateIndex(bundle.path / INDEX, size=bundle.manifest.dim, biased=bundle.bias is not None)


def _among(rows: NDArray[np.int64], lists: list[NDArray[np.int64]] | None) -> list[NDArray[np.int64]] | None:
    """Turn lists of items into the places that they have among ``rows``."""
    return None if lists is None else [np.flatnonzero(np.isin(rows, items)) for items in lists]


def _most_popular(
    popularity: Floats, rows: NDArray[np.int64] | None, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    among = popularity if rows is None else popularity[rows]
    best = best_items(among, min(k, len(among)))
    return best if rows is None else rows[best], among[best]

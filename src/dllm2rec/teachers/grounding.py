"""Grounding: a written text becomes a ranking of the catalogue by distance of states (Cui et al. 2024, eq. 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from dllm2rec.core.arrays import place_in_group
from dllm2rec.teachers.llm import LanguageModel

Floats = NDArray[np.float32]
_QUERY_BLOCK, _ITEM_BLOCK = 256, 32768
_TOKENS_A_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """Rankings of N texts.

    Attributes:
        ranked_items: `[N, K]` int32, nearest first.
        distances: `[N, K]` float32, squared L2 distances of the listed items.
    """

    ranked_items: NDArray[np.int32]
    distances: Floats


@torch.inference_mode()
def text_states(
    llm: LanguageModel, texts: Sequence[list[int]], *, advance: Callable[[int], None] | None = None
) -> Floats:
    """Return the last layer's state at the last token of each text, `[N, D]`.

    Args:
        llm: a decoder, in which padding to the right of a token can't change its state.
        texts: N texts as token ids, none empty.
        advance: told how many texts each batch has finished.
    """
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    states = np.empty((len(texts), llm.model.config.get_text_config().hidden_size), np.float32)
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_A_BATCH // max(1, len(texts[order[min(start + 255, len(order) - 1)]])))
        rows = order[start : start + min(size, 256)]
        lengths = torch.tensor([len(texts[row]) for row in rows])
        ids = pad_sequence([torch.tensor(texts[row]) for row in rows], batch_first=True)
        hidden = llm.model.base_model(input_ids=ids.to(llm.device), use_cache=False).last_hidden_state
        states[rows] = hidden[torch.arange(len(rows)), lengths.to(hidden.device) - 1].float().cpu().numpy()
        start += len(rows)
        if advance is not None:
            advance(len(rows))
    return states


class Grounding:
    """Ranks a catalogue by distance from texts, in blocks: there is never a matrix of texts by items.

    Items that share a title share a vector and so a distance. Among them the one that training saw more often comes
    first, then the one with the smaller index.

    Args:
        item_vectors: `[V, D]`, states of the titles.
        titles: V keys; items with equal keys are duplicates of each other.
        train_counts: `[V]`, how often training saw each item.
    """

    def __init__(self, item_vectors: Floats, *, titles: Sequence[object], train_counts: NDArray[np.int64]) -> None:
        number = {title: place for place, title in enumerate(dict.fromkeys(titles))}
        group = np.array([number[title] for title in titles])
        # members of each group, in the stated order, back to back
        self._members = np.lexsort((np.arange(len(group)), -train_counts, group)).astype(np.int32)
        self._sizes = np.bincount(group)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        # distances do not change when both sides move, and small numbers lose fewer digits
        self._centre = item_vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        distinct = item_vectors[self._members[self._starts]]
        self._items = torch.from_numpy(distinct - self._centre)
        self._vectors = item_vectors
        self.num_items = len(item_vectors)

    def rank(self, queries: Floats, *, depth: int) -> Grounded:
        """Rank the catalogue for texts.

        Args:
            queries: `[N, D]`, states of the texts.
            depth: K, items to list, at most V.

        Raises:
            ValueError: K is not within 1..V, or a state is not finite.
        """
        if not 1 <= depth <= len(self._members):
            raise ValueError(f"depth must be within 1..{len(self._members)}, not {depth}")
        if not np.isfinite(queries).all():
            raise ValueError("the state of a text is not finite; the language model is broken or overflows")
        blocks = [
            self._rank_block(queries[at : at + _QUERY_BLOCK], depth) for at in range(0, len(queries), _QUERY_BLOCK)
        ]
        if not blocks:
            return Grounded(ranked_items=np.empty((0, depth), np.int32), distances=np.empty((0, depth), np.float32))
        items, distances = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return Grounded(ranked_items=items, distances=distances)

    def distance(self, queries: Floats, items: NDArray[np.int32]) -> Floats:
        """Return the squared distance between each text `[N, D]` and one item of its own, `[N]`."""
        difference = queries.astype(np.float64) - self._vectors[items]
        squared: NDArray[np.float64] = np.square(difference).sum(axis=1)
        return squared.astype(np.float32)

    def _rank_block(self, queries: Floats, depth: int) -> tuple[NDArray[np.int32], Floats]:
        query = torch.from_numpy(queries - self._centre)
        best = torch.empty(len(query), 0)
        groups = torch.empty(len(query), 0, dtype=torch.long)
        for start in range(0, len(self._items), _ITEM_BLOCK):
            items = self._items[start : start + _ITEM_BLOCK]
            distances = query.square().sum(1, keepdim=True) - 2 * query @ items.T + items.square().sum(1)
            places = torch.arange(start, start + len(items)).expand(len(query), -1)
            best, groups = torch.cat([best, distances.clamp(min=0)], 1), torch.cat([groups, places], 1)
            best, order = best.topk(min(depth, best.shape[1]), dim=1, largest=False)
            groups = groups.gather(1, order)
        return self._expand(groups.numpy(), best.numpy(), depth)

    def _expand(self, groups: NDArray[np.int64], distances: Floats, depth: int) -> tuple[NDArray[np.int32], Floats]:
        """List the members of the ranked groups `[n, G]` until K items stand in each row."""
        sizes = self._sizes[groups]
        flat = sizes.ravel()
        items = self._members[np.repeat(self._starts[groups.ravel()], flat) + place_in_group(flat)]
        kept = place_in_group(sizes.sum(axis=1)) < depth
        shape = (len(groups), depth)
        return items[kept].reshape(shape), np.repeat(distances.ravel(), flat)[kept].reshape(shape)

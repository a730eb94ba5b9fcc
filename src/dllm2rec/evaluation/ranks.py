"""The rank of the item that came next, over the whole catalogue."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm2rec.core.progress import progress_bar
from dllm2rec.core.tensors import best_items
from dllm2rec.data import Examples
from dllm2rec.losses.checks import NotFiniteError

ScoreFunction = Callable[..., Tensor]
"""Scores the catalogue for histories of any width, `[B, L]` to `[B, V]`; with an attribute `reads_users` that is true,
for histories and users `[B]`; with one `reads_all` that is true, it wants all that is known of a user."""

SCORES_AT_ONCE = 1 << 23
"""Most scores of a block, if one example has no more."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How examples were answered, aligned by row.

    Attributes:
        example_id: `[N]` int64.
        rank: `[N]` float64 from 1; among equal scores the mean of the ranks they share; infinite where a list does not
            hold the target.
        top_items: `[N, K]` int32, the best items from the first on, or None.
    """

    example_id: NDArray[np.int64]
    rank: NDArray[np.float64]
    top_items: NDArray[np.int32] | None

    def __len__(self) -> int:
        return len(self.example_id)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Ranks":
        """Return the ranks at ``rows`` (indices or a mask)."""
        top = None if self.top_items is None else self.top_items[rows]
        return Ranks(example_id=self.example_id[rows], rank=self.rank[rows], top_items=top)


@torch.inference_mode()
def rank_targets(
    score: ScoreFunction,
    examples: Examples,
    *,
    batch_size: int = 512,
    mask_history: bool = False,
    top_k: int = 0,
    told: str | None = None,
) -> Ranks:
    """Rank the target of each example among all V items.

    Equal scores share the mean of their ranks, ``1 + greater + others equal / 2``: a model that scores everything
    equally gets ``(V + 1) / 2``. Only one block of scores `[B, V]` is in memory.

    Args:
        score: scores the whole catalogue for histories.
        examples: histories and targets.
        batch_size: most histories a block; fewer where the catalogue is large.
        mask_history: leave items of the history out, but never the target. The paper does not.
        top_k: also return the best items; equal scores in order of the index.
        told: what a progress bar says; None shows none.

    Raises:
        ValueError: scores of the wrong shape, or NaN among them.
    """
    size = min(batch_size, rows_at_once(score, examples, SCORES_AT_ONCE))
    top_k = min(top_k, examples.num_items)
    rank = np.empty(len(examples), np.float64)
    top = np.empty((len(examples), top_k), np.int32) if top_k else None
    with nullcontext() if told is None else progress_bar(told, len(examples)) as advance:
        for start in range(0, len(examples), size):
            rows = slice(start, min(start + size, len(examples)))
            history = histories_for(score, examples, rows)
            target = torch.from_numpy(examples.target[rows].astype(np.int64)).unsqueeze(1)
            scores = _checked(score_histories(score, history, examples.user[rows]), (len(history), examples.num_items))
            if mask_history:
                scores = without_history(scores, history[:, -examples.history.shape[1] :], target)
            rank[rows] = mean_ranks(scores, target)
            if top is not None:
                top[rows] = best_items(scores, top_k).numpy()
            if advance is not None:
                advance(len(history))
    return Ranks(example_id=examples.example_id, rank=rank, top_items=top)


def histories_for(score: ScoreFunction, examples: Examples, rows: slice = slice(None)) -> Tensor:
    """Return the histories that some examples are scored by, `[n, L]`, or `[n, more]` for who reads all."""
    history = examples.known(rows) if getattr(score, "reads_all", False) else examples.history[rows]
    return torch.from_numpy(history.astype(np.int64))


def rows_at_once(score: ScoreFunction, examples: Examples, values: int) -> int:
    """Return how many examples have no more than so many scores, and no more than so many items before them."""
    longest = examples.longest if getattr(score, "reads_all", False) else examples.history.shape[1]
    return max(1, values // max(examples.num_items, longest))


def score_histories(score: ScoreFunction, history: Tensor, user: NDArray[np.int32]) -> Tensor:
    """Score the catalogue for histories `[B, L]` of users `[B]`."""
    if getattr(score, "reads_users", False):
        return score(history, torch.from_numpy(user.astype(np.int64)))
    return score(history)


def ranks_from_lists(
    ranked_items: NDArray[np.int32], examples: Examples, *, distances: NDArray[np.floating] | None = None
) -> Ranks:
    """Rank targets by lists of distinct items; a target that is not listed has an infinite rank.

    Args:
        ranked_items: `[N, K]`, best first.
        examples: N of them.
        distances: `[N, K]` of the listed items, infinite where there is none; equal ones share the mean of their ranks.
            Where several share the last one, nobody knows how many more do beyond the list: none of them counts as
            listed, unless all V are. A single last one is believed.
    """
    hits = ranked_items == examples.target[:, None]
    rank = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    if distances is not None and distances.shape[1]:
        own = np.take_along_axis(distances, hits.argmax(axis=1)[:, None], axis=1)
        nearer, equal = (np.count_nonzero(found, axis=1) for found in (distances < own, distances == own))
        last = np.where(np.isfinite(distances), distances, -np.inf).max(axis=1)
        open_ended = (equal > 1) & (own[:, 0] == last) & (ranked_items.shape[1] < examples.num_items)
        shared = np.where(open_ended, np.inf, 1.0 + nearer + (equal - 1.0) / 2.0)
        rank = np.where(np.isfinite(rank), shared, np.inf)
    return Ranks(example_id=examples.example_id, rank=rank, top_items=ranked_items)


def in_history(ranked_items: NDArray[np.int32], examples: Examples) -> NDArray[np.bool_]:
    """Say which items of lists `[N, K]` are in the histories of their examples, `[N, K]`."""
    held = np.zeros(ranked_items.shape, np.bool_)
    for read in examples.history.T:
        held |= ranked_items == read[:, None]
    return held


def lists_without(
    held: NDArray[np.bool_], ranked_items: NDArray[np.int32], distances: NDArray[np.floating]
) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    """Take the items that are ``held`` out of lists, `[N, K]` each; -1, infinitely far, fills them up."""
    order = np.argsort(held, axis=1, kind="stable")
    taken = np.take_along_axis(held, order, axis=1)
    items = np.where(taken, np.int32(-1), np.take_along_axis(ranked_items, order, axis=1))
    return items, np.where(taken, np.inf, np.take_along_axis(distances, order, axis=1))


def _checked(scores: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(scores.shape) != shape:
        raise ValueError(f"scores must be {list(shape)}, not {list(scores.shape)}")
    scores = scores.detach().cpu()
    # a sum is NaN if any part is; inf - inf also is, so look closer only then
    if torch.isnan(scores.sum()) and torch.isnan(scores).any():
        raise NotFiniteError("scores hold NaN; the model has diverged")
    return scores


def without_history(scores: Tensor, history: Tensor, target: Tensor) -> Tensor:
    """Return scores `[B, V]` in which the items of histories `[B, L]` come last, but never the target `[B, 1]`."""
    kept = scores.gather(1, target)
    padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], 1)
    padded.scatter_(1, history, -torch.inf)
    return padded[:, :-1].scatter(1, target, kept)


def mean_ranks(scores: Tensor, target: Tensor) -> NDArray[np.float64]:
    """Return the mean rank of each target `[B, 1]` by scores `[B, V]`, `[B]`; see `rank_targets`."""
    # counting is several times as fast in NumPy, which has no half precision that torch would share
    values = (scores.float() if scores.element_size() == 2 else scores).numpy()
    own = np.take_along_axis(values, target.numpy(), axis=1)
    greater, equal = (np.count_nonzero(found, axis=1) for found in (values > own, values == own))
    rank: NDArray[np.float64] = 1.0 + greater + (equal - 1.0) / 2.0
    return rank

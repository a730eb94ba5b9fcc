"""Demand weights: corrections of scores for popularity drift, tuned on validation after training.

A student or a baseline is fitted to all of training, so it reflects the mean popularity of that time and has no
evidence for items that nobody has interacted with yet. After the cut demand has moved on, and the catalogue has grown.
`Demand` measures both from training alone; validation chooses how much either counts. This corrects the prior of
classes after training (Saerens et al. 2002), with two weights, `trend` and `new`, instead of one per class.

The third weight, `again`, is for items of the user's own history: in most shops few users want the same item again,
though nothing is more similar to it. Validation also chooses whether it applies to the items that the model reads or to
the whole history (`ever`). The fourth is for text neighbours of the history: a learned vector ages, a title does not.
The fifth is for transition counts, which keep rare transitions sharper than an encoder does.

The further from the cut, the more targets are cold-start items. So in the choice of all weights but the third these
count as much as they do at the end of validation, which is nearest to when the weights are used: see `unseen_weights`.

In a catalogue that was filtered by the number of interactions (a k-core), an item that training never saw is known to
be interacted with later, or it would not be there. So part of the gain from `new` on such data is the filter's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.core.settings import Settings
from dllm2rec.core.tensors import best_items
from dllm2rec.data import Examples
from dllm2rec.data.demand import Demand
from dllm2rec.evaluation.metrics import TOP, ndcg
from dllm2rec.evaluation.ranks import ScoreFunction, mean_ranks, score_histories
from dllm2rec.evaluation.shifts import gains_under_shifts
from dllm2rec.knowledge.confidence import likeliest_temperature
from dllm2rec.students.base import add_again

TREND = tuple(0.25 * step for step in range(7))
NEW = (*(0.5 * step for step in range(15)), -1.0)
TEXT = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
TRANSITIONS = (0.0, 0.25, 0.5, 1.0, 2.0)
PAIRS, COARSE = (
    sorted(product(trends, news), key=lambda pair: (abs(pair[0]) + abs(pair[1]), pair))
    for trends, news in ((TREND, NEW), (TREND[::2], NEW[::2]))
)
AGAIN = (0.0, -2.0, -4.0, -100.0, 2.0)
LEFT_OUT = -1e4
"""What items of a history get on top of their scores so that no list has them."""
LISTED = 100
MOST_SCORES, MOST_EXAMPLES = 60_000_000, 20_000
FEWEST_EXAMPLES = 500
NEWEST = 1 / 3
_SCORES_AT_ONCE = 1 << 22


class DemandWeights(Settings):
    """The weights that validation chose, all in the unit of the scores.

    Attributes:
        trend: weight of the trend of items that training saw.
        new: added to the score of every item that training never saw.
        again: added to the scores of items of the history.
        ever: whether `again` applies to the whole history, and not only to the items that the model reads.
        text: weight of the text neighbours of the history.
        transitions: weight of the transition counts of the history's items.
        ndcg: NDCG@20 with these weights, on the part of validation that chose them, see `subsample`.
        before: NDCG@20 without them.
    """

    trend: float
    new: float
    again: float
    ever: bool = False
    text: float = 0.0
    transitions: float = 0.0
    ndcg: float
    before: float

    def shift(self, demand: Demand) -> NDArray[np.float32]:
        """Return what is added to the score of each item, `[V]`."""
        return demand.shift(trend=self.trend, new=self.new)


def choose_demand(
    score: ScoreFunction,
    validation: Examples,
    demand: Demand,
    *,
    text: ScoreFunction | None = None,
    transitions: ScoreFunction | None = None,
) -> DemandWeights:
    """Choose the weights with the best NDCG@20 on validation; of text by the one-standard-error rule.

    One after the other, 2, 4 and 5 with `unseen_weights` of examples:

    1. `again`, and whether it is for `ever`.
    2. `text`, for which every other value of `trend` and `new` is tried beside it. The largest weight is taken that is
       within a standard error of the best (Breiman et al. 1984) and better than none: nothing of it was learned, so it
       is the safer choice for a later time.
    3. Where text got a weight, `again` once more.
    4. `trend` and `new` together.
    5. `transitions`.

    Weights are tried in units of the temperature under which the true items of validation are likeliest, so that the
    same values suit the logits of a student and the similarities of a reference; that of transitions in units of both
    temperatures, so that 1 is a product of the two distributions. A large catalogue or log is tried on a part, see
    `subsample`.

    Args:
        score: scores the whole catalogue for histories.
        validation: examples, in time order.
        demand: of the training part of the same dataset.
        text: scores the catalogue by text neighbours; None where there is no text.
        transitions: scores it by what followed the items of a history in training; None where that is not counted.
    """
    some = subsample(validation)
    passes = 2 if text is None else 3 + len(TEXT)
    passes += 0 if transitions is None else len(TRANSITIONS)
    passes += _kept(some)  # scoring is a pass of its own where scores are kept
    with progress_bar("choosing weights on validation", passes * len(some)) as advance:
        return _choose(_Tried(score, text, transitions, some, advance), demand)


def _choose(tried: "_Tried", demand: Demand) -> DemandWeights:
    unit = tried.unit()
    again, before = _best_again(tried, unit)
    unit = tried.unit(again)  # anew: what histories hold may have stood far above all else
    weight = unseen_weights(tried.examples, demand)

    def by_example(near: float, pairs: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        weights = [(unit * trend, unit * new) for trend, new in pairs]
        return tried.gains_of_shifts(demand, weights, again=again, text=unit * near)

    near = 0.0
    if tried.text is not None:
        near = _most_text([_best(by_example(one, COARSE), weight) for one in TEXT], weight)
        if near > 0:  # nothing is more like an item than itself, so what is right for the history's may have changed
            again, _ = _best_again(tried, unit, text=unit * near)
    gains = by_example(near, PAIRS)
    best = int(np.argmax(gains @ weight))
    trend, new = PAIRS[best]
    reached, followed = gains[best], 0.0
    if tried.transitions is not None:
        pair, scale = (unit * trend, unit * new), unit / tried.unit_of_transitions()
        weights = [scale * one for one in TRANSITIONS]
        found = [
            tried.gains_of_shifts(demand, [pair], again=again, text=unit * near, transitions=one)[0] for one in weights
        ]
        most = int(np.argmax(np.array(found) @ weight))
        reached, followed = found[most], weights[most]
    return DemandWeights(
        trend=unit * trend,
        new=unit * new,
        again=again.weight,
        ever=again.ever,
        text=unit * near,
        transitions=followed,
        ndcg=float(reached.mean()),
        before=before,
    )


def unseen_weights(validation: Examples, demand: Demand) -> NDArray[np.float64]:
    """Return how much each example counts, `[N]`, sum 1: those of unseen targets as many of them as come at the end.

    Together they weigh what their share is in the newest `NEWEST` of validation, of at least `FEWEST_EXAMPLES`.

    Args:
        validation: in time order.
        demand: says which items are new.
    """
    new = demand.new[validation.target]
    share = new[-max(FEWEST_EXAMPLES, round(NEWEST * len(new))) :].mean()
    weight: NDArray[np.float64] = np.where(new, share / max(1, new.sum()), (1 - share) / max(1, (~new).sum()))
    weight /= weight.sum()
    return weight


def subsample(validation: Examples, *, scores: int = MOST_SCORES, most: int = MOST_EXAMPLES) -> Examples:
    """Return all examples, or a sample evenly over their time: at most ``most``, and about ``scores`` scores."""
    count = min(len(validation), most, max(FEWEST_EXAMPLES, scores // validation.num_items))
    return validation.take(np.unique(np.linspace(0, len(validation) - 1, count).round().astype(np.int64)))


def adjusted(
    score: ScoreFunction,
    *,
    reads: int,
    shift: NDArray[np.float32] | None = None,
    again: float = 0.0,
    ever: bool = False,
) -> ScoreFunction:
    """Return a score function that reads the newest items, and adds to what another one says.

    Args:
        score: the other one.
        reads: how many items of a history it is given.
        shift: `[V]`, is added to all scores.
        again: is added to those of the items that it is given,
        ever: or of the whole history.
    """
    added = None if shift is None else torch.from_numpy(shift)

    def changed(history: Tensor, *user: Tensor) -> Tensor:
        newest = history[:, -reads:]
        scores = add_again(score(newest, *user), history if ever else newest, again)
        return scores if added is None else scores + added

    changed.reads_users = getattr(score, "reads_users", False)  # type: ignore[attr-defined]
    changed.reads_all = ever and again != 0.0  # type: ignore[attr-defined]
    return changed


@dataclass(frozen=True, kw_only=True)
class _Again:
    """What items that were chosen already get: all of them, or those that a model reads."""

    weight: float = 0.0
    ever: bool = False


class _Tried:
    """The examples that weights are tried on, with their scores, which are kept where memory has room for them.

    Args:
        score: scores the catalogue for what a model reads of a history.
        text: the same by text neighbours, or None.
        transitions: the same by what followed its items in training, or None.
        examples: N of them.
        advance: told of examples, once in each pass over them.
    """

    def __init__(
        self,
        score: ScoreFunction,
        text: ScoreFunction | None,
        transitions: ScoreFunction | None,
        examples: Examples,
        advance: Advance,
    ) -> None:
        self.examples, self.text, self.transitions = examples, text, transitions
        self._score, self._advance = score, advance
        self._parts = list(examples.batches(max(1, _SCORES_AT_ONCE // max(examples.num_items, examples.longest))))
        self._keeps = _kept(examples)
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}

    def unit(self, again: _Again = _Again()) -> float:
        """Return the temperature under which the true items are likeliest."""
        return self._temperature(lambda number, rows: self._scores(number, again, rows=rows))

    def unit_of_transitions(self) -> float:
        """Return the same of transitions alone."""
        return self._temperature(lambda number, rows: self._followed(number)[rows])

    @torch.inference_mode()
    def _temperature(self, scores_of: Callable[[int, NDArray[np.int64]], Tensor]) -> float:
        step, listed = max(1, len(self.examples) // FEWEST_EXAMPLES), min(LISTED, self.examples.num_items)
        items, values, targets, start = [], [], [], 0
        for number, part in enumerate(self._parts):
            rows = np.arange(-start % step, len(part), step)
            start += len(part)
            scores = scores_of(number, rows)
            found = best_items(scores, listed)
            items.append(found.numpy())
            values.append(scores.gather(1, found.long()).float().numpy())
            targets.append(part.target[rows])
        return likeliest_temperature(
            ranked_items=np.concatenate(items),
            distances=-np.concatenate(values),
            target=np.concatenate(targets),
            num_items=self.examples.num_items,
        )

    @torch.inference_mode()
    def gains(self, agains: Sequence[_Again], *, text: float = 0.0) -> NDArray[np.float64]:
        """Return the NDCG@20 of each example with each weight of what was chosen already, `[agains, N]`."""
        gains = []
        for number, part in enumerate(self._parts):
            target = torch.from_numpy(part.target.astype(np.int64)).unsqueeze(1)
            ranks = [mean_ranks(self._scores(number, again, text=text), target) for again in agains]
            gains.append(ndcg(np.stack(ranks), TOP))
            self._advance(len(part))
        return np.concatenate(gains, axis=1)

    @torch.inference_mode()
    def gains_of_shifts(
        self,
        demand: Demand,
        weights: Sequence[tuple[float, float]],
        *,
        again: _Again,
        text: float,
        transitions: float = 0.0,
    ) -> NDArray[np.float64]:
        """Return the NDCG@20 of each example under each pair of weights, `[P, N]`; see `gains_under_shifts`."""
        gains = []
        for number, part in enumerate(self._parts):
            scores = self._scores(number, again, text=text, transitions=transitions).float().numpy()
            gains.append(gains_under_shifts(scores, part.target, demand, weights))
            self._advance(len(part))
        return np.concatenate(gains, axis=1)

    def _scores(
        self,
        number: int,
        again: _Again,
        *,
        text: float = 0.0,
        transitions: float = 0.0,
        rows: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Score some examples of a part, all of them by default, `[n, V]`."""
        own, near = self._asked(number)
        scores = own if near is None or text == 0.0 else own + text * near
        scores = scores if transitions == 0.0 else scores + transitions * self._followed(number)
        part = self._parts[number]
        history = torch.from_numpy((part.known() if again.ever else part.history).astype(np.int64))
        if rows is not None:
            scores, history = scores[rows], history[rows]
        return add_again(scores, history, again.weight)

    def _followed(self, number: int) -> Tensor:
        """Score a part by transitions: anew each time, for they are sparse and so cost little."""
        assert self.transitions is not None  # noqa: S101 - they are asked for where they are counted
        part = self._parts[number]
        return score_histories(self.transitions, torch.from_numpy(part.history.astype(np.int64)), part.user)

    def _asked(self, number: int) -> tuple[Tensor, Tensor | None]:
        if number in self._kept:
            return self._kept[number]
        part = self._parts[number]
        history = torch.from_numpy(part.history.astype(np.int64))
        functions = (self._score, self.text)
        own, near = (
            None if one is None else score_histories(one, history, part.user).detach().cpu() for one in functions
        )
        assert own is not None  # noqa: S101 - only text may be
        if self._keeps:
            self._kept[number] = own, near
            self._advance(len(part))
        return own, near


def _kept(examples: Examples) -> bool:
    """Say whether memory has room for the scores of all examples."""
    return len(examples) * examples.num_items <= MOST_SCORES


def _best_again(tried: _Tried, unit: float, *, text: float = 0.0) -> tuple[_Again, float]:
    """Return the best weight of what was chosen already, and the NDCG@20 without one."""
    some = tried.examples
    longer = some.past is not None and bool((some.past.length > some.history.shape[1]).any())
    tried_weights = [(again, False) for again in AGAIN] + [(again, True) for again in AGAIN if again and longer]
    agains = [_Again(weight=unit * again, ever=ever) for again, ever in tried_weights]
    reached = tried.gains(agains, text=text).mean(axis=1)
    return agains[int(np.argmax(reached))], float(reached[0])


def _best(gains: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the row of ``gains`` `[pairs, N]` that is best under weights `[N]`."""
    best: NDArray[np.float64] = gains[int(np.argmax(gains @ weight))].copy()  # no view, which would keep them all
    return best


def _most_text(gains: Sequence[NDArray[np.float64]], weight: NDArray[np.float64]) -> float:
    """Return the largest of `TEXT` whose gains `[N]` are within a standard error of the best one's and above no text's.

    ``gains`` are aligned with `TEXT`, whose first is 0: what is chosen where no text is above none.
    """
    reached = [float(one @ weight) for one in gains]
    best = gains[int(np.argmax(reached))]
    losses = [(best - one) * weight * len(weight) for one in gains]
    fits = [loss.mean() <= loss.std() / len(loss) ** 0.5 for loss in losses]
    better = [value for value, fit, one in zip(TEXT, fits, reached, strict=True) if fit and one > reached[0]]
    return max(better, default=0.0)

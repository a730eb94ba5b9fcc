"""Four weights, chosen on validation, with which scores follow the demand of the time that they are used in.

A student or a reference is fitted to all of training, so it believes in the mean popularity of that time, and it has
no evidence for an item that no one chose yet. What comes after the cut is chosen otherwise: demand moves on, and
catalogues grow. `Demand` measures both from training alone; here validation says how much either counts. It is a
correction of the prior of classes after training (Saerens et al. 2002), with two parameters instead of one a class.
The third weight is for what was chosen already: in most shops few want the same again, though nothing is more like it;
validation says, too, whether that is so of what a model reads alone, or of all that a user ever chose.
The fourth is for text that is like the history's: what was learned of an item ages, what its title says does not.

The further from the cut, the more targets training never saw; so in the choice of all but the third they count as much
as they do at the end of validation, which is nearest to what the weights are for: see `unseen_weights`.

In a catalogue that was filtered by the number of interactions (a k-core), an item that training never saw is known to
be chosen later, or it would not be there. So part of the gain from `new` on such data is the filter's.
"""

from collections.abc import Iterator, Sequence
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
from dllm2rec.evaluation.ranks import ScoreFunction, ask, histories_for, mean_ranks, rows_at_once
from dllm2rec.knowledge.confidence import likeliest_temperature
from dllm2rec.students.base import add_again

TREND = tuple(0.25 * step for step in range(7))
NEW = (*(0.5 * step for step in range(15)), -1.0)
TEXT = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
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
    """What was chosen.

    Attributes:
        trend: of the trend of items that training saw, in the unit of the scores.
        new: that every item gets which training never saw, in that unit.
        again: that the items of the history get, in that unit.
        ever: whether they get it however long ago they were chosen, and not only as far as the model reads.
        text: of the text neighbours of the history, in that unit.
        ndcg: NDCG@20 with all, on validation.
        before: the same without.
    """

    trend: float
    new: float
    again: float
    ever: bool = False
    text: float = 0.0
    ndcg: float
    before: float

    def shift(self, demand: Demand) -> NDArray[np.float32]:
        """Return what is added to the score of each item, `[V]`."""
        return demand.shift(trend=self.trend, new=self.new)


def choose_demand(
    score: ScoreFunction, validation: Examples, demand: Demand, *, text: ScoreFunction | None = None
) -> DemandWeights:
    """Choose the weights with the best NDCG@20 on validation; of text by the one-standard-error rule.

    First the weight of the history's items, then that of text with every other value of the last two, then, where there
    is text, the first once more, then the last two together; all but the first with `unseen_weights` of examples. Of
    text the largest weight is taken that is within a standard error of the best (Breiman et al. 1984) and better than
    none: nothing of it was learned, so it is the safer choice for a later time. Weights are tried in units of the
    temperature under which the true items of validation are likeliest, so that the same values suit the logits of a
    student and the similarities of a reference. A large catalogue or log is tried on a part, see `subsample`.

    Args:
        score: scores the whole catalogue for histories.
        validation: examples, in time order.
        demand: of the training part of the same dataset.
        text: scores the catalogue by text neighbours; None where there is no text.
    """
    some = subsample(validation)
    tries = len(_agains(some)) + len(PAIRS) + (0 if text is None else len(TEXT) * len(COARSE))
    with progress_bar("choosing weights on validation", tries * len(some)) as advance:
        return _choose(score, some, demand, text, advance)


def _choose(
    score: ScoreFunction, some: Examples, demand: Demand, text: ScoreFunction | None, advance: Advance
) -> DemandWeights:
    reads = some.history.shape[1]
    score, text = adjusted(score, reads=reads), None if text is None else adjusted(text, reads=reads)
    unit = _unit(score, some)
    chosen, ever, before = _again(score, unit, some, advance)
    again = unit * chosen
    repeated = adjusted(score, reads=reads, again=again, ever=ever)
    unit = _unit(repeated, some)  # anew: what histories hold may have stood far above all else
    weight = unseen_weights(some, demand)

    def by_example(near: float, pairs: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        shifts = [demand.shift(trend=unit * trend, new=unit * new) for trend, new in pairs]
        return _gains(beside(repeated, text, unit * near), shifts, some, advance)

    near = 0.0 if text is None else _most_text([_best(by_example(one, COARSE), weight) for one in TEXT], weight)
    if near > 0:  # nothing is more like an item than itself, so what is right for the history's may have changed
        both = beside(score, text, unit * near)
        chosen, ever, _ = _again(both, unit, some)
        again = unit * chosen
        repeated = adjusted(score, reads=reads, again=again, ever=ever)
    trend, new = PAIRS[int(np.argmax(by_example(near, PAIRS) @ weight))]
    best = demand.shift(trend=unit * trend, new=unit * new)
    return DemandWeights(
        trend=unit * trend,
        new=unit * new,
        again=again,
        ever=ever,
        text=unit * near,
        ndcg=float(_gains(beside(repeated, text, unit * near), [best], some).mean()),
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


def subsample(validation: Examples) -> Examples:
    """Return all examples, or as many as `MOST_EXAMPLES` and `MOST_SCORES` allow, evenly over their time."""
    count = min(len(validation), MOST_EXAMPLES, max(FEWEST_EXAMPLES, MOST_SCORES // validation.num_items))
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


def beside(score: ScoreFunction, text: ScoreFunction | None, weight: float) -> ScoreFunction:
    """Return a score function that adds ``weight`` times the scores by ``text``."""
    if text is None or weight == 0.0:
        return score

    def both(history: Tensor, *user: Tensor) -> Tensor:
        return score(history, *user) + weight * text(history)

    for name in ("reads_users", "reads_all"):
        setattr(both, name, getattr(score, name, False))
    return both


def _again(
    score: ScoreFunction, unit: float, examples: Examples, advance: Advance | None = None
) -> tuple[float, bool, float]:
    """Return the best weight of the history's items, whether all of them have it, and the NDCG@20 without one."""
    reads, tried = examples.history.shape[1], _agains(examples)
    changed = (adjusted(score, reads=reads, again=unit * again, ever=ever) for again, ever in tried)
    reached = [float(_gains(one, [None], examples, advance).mean()) for one in changed]
    return *tried[int(np.argmax(reached))], reached[0]


def _agains(examples: Examples) -> list[tuple[float, bool]]:
    """Return what is tried of the history's items: the newest ones, then all of them, where there are more."""
    longer = examples.past is not None and bool((examples.past.length > examples.history.shape[1]).any())
    return [(again, ever) for ever in (False, True)[: 1 + longer] for again in AGAIN if again or not ever]


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


@torch.inference_mode()
def _unit(score: ScoreFunction, examples: Examples) -> float:
    some = examples.take(np.arange(0, len(examples), max(1, len(examples) // FEWEST_EXAMPLES)))
    listed = min(LISTED, examples.num_items)
    items, values = zip(*(_listed(_scores(score, part), listed) for part in _parts(score, some)), strict=True)
    return likeliest_temperature(
        ranked_items=np.concatenate(items),
        distances=-np.concatenate(values),
        target=some.target,
        num_items=some.num_items,
    )


def _listed(scores: Tensor, listed: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    items = best_items(scores, listed)
    return items.numpy(), scores.gather(1, items.long()).float().numpy()


@torch.inference_mode()
def _gains(
    score: ScoreFunction,
    shifts: Sequence[NDArray[np.float32] | None],
    examples: Examples,
    advance: Advance | None = None,
) -> NDArray[np.float64]:
    """Return the NDCG@20 of each example under each shift, `[shifts, N]`."""
    parts = []
    for part in _parts(score, examples):
        scores = _scores(score, part)
        target = torch.from_numpy(part.target.astype(np.int64)).unsqueeze(1)
        moved = (scores if shift is None else scores + torch.from_numpy(shift) for shift in shifts)
        parts.append(np.stack([ndcg(mean_ranks(one, target), TOP).ravel() for one in moved]))
        if advance is not None:
            advance(len(shifts) * len(part))
    return np.concatenate(parts, axis=1)


def _scores(score: ScoreFunction, examples: Examples) -> Tensor:
    return ask(score, histories_for(score, examples), examples.user).detach().cpu()


def _parts(score: ScoreFunction, examples: Examples) -> Iterator[Examples]:
    return examples.batches(rows_at_once(score, examples, _SCORES_AT_ONCE))

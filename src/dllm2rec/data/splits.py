"""Which positions of the log are training, validation and test targets: the paper's split, global time, leave one out.

A position is a row of the interactions in (user, time) order. Only a position with at least one earlier interaction of
the same user can be a target. Every split keeps two promises: within a user every training target comes before every
validation target and that before every test target; and with the paper's split and global time no target of a later
part is older than a target of an earlier part. Leave one out keeps the first promise only: it is not a split in time.
"""

from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.core.settings import Settings

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TrainOn = Literal["examples", "positions", "before-cut"]
Positions = dict[Split, NDArray[np.int64]]
Ratio = Annotated[float, Field(gt=0, lt=1)]


class _SplitBase(Settings):
    """What every split has.

    Attributes:
        history: the most items of a history that an example keeps.
        tie_shuffle_seed: shuffle the events of one user at one time with this seed; None keeps the order of the file.
        sample_train: keep at most so many training examples, drawn without replacement; None keeps all. A student that
            learns from all events before the cut, as in the strong protocol, is not limited by it.
        sample_validation: the same for validation.
        sample_test: the same for test.
        sample_seed: seed of these three draws.
    """

    history: PositiveInt = 10
    tie_shuffle_seed: int | None = None
    sample_train: PositiveInt | None = None
    sample_validation: PositiveInt | None = None
    sample_test: PositiveInt | None = None
    sample_seed: int = 0


class _RatioSplit(_SplitBase):
    """What splits by shares have, too.

    Attributes:
        ratios: of training, validation and test; they sum to 1.
    """

    ratios: tuple[Ratio, Ratio, Ratio] = (0.8, 0.1, 0.1)

    @model_validator(mode="after")
    def _ratios_sum_to_one(self) -> Self:
        if abs(sum(self.ratios) - 1) > 1e-9:
            raise ValueError(f"ratios must sum to 1, not to {sum(self.ratios)}")
        return self


class PaperSplit(_RatioSplit):
    """The split of Cui et al. 2024.

    A user with more than `history` interactions gives an example for each position after the first `history`; a shorter
    user gives one, the last interaction. All examples, sorted by time (ties: in the order of the users and then of
    their events), are cut by `ratios`, rounded down.
    """

    kind: Literal["paper"] = "paper"


class GlobalTimeSplit(_RatioSplit):
    """Two points in time cut the log so that `ratios` of the events lie between them.

    Every interaction but a user's first is an example. Events at the very time of a cut go to the later part.
    """

    kind: Literal["global-time"] = "global-time"


class LeaveOneOutSplit(_SplitBase):
    """A user's last interaction is for test, the one before for validation, each other but the first for training."""

    kind: Literal["leave-one-out"] = "leave-one-out"


SplitSettings = Annotated[PaperSplit | GlobalTimeSplit | LeaveOneOutSplit, Field(discriminator="kind")]


def split_positions(
    *, ordinal: NDArray[np.int64], length: NDArray[np.int64], time: NDArray[np.generic], settings: SplitSettings
) -> Positions:
    """Find the targets of each part, before any sampling.

    Args:
        ordinal: `[M]` place of each interaction in its user's sequence, from 0; rows in (user, time) order.
        length: `[M]` how many interactions that user has.
        time: `[M]` seconds.
        settings: the split.

    Returns:
        For each part the positions of its targets, in time order.

    Raises:
        UserError: a part has no example; the message says which and why.
    """
    match settings:
        case PaperSplit():
            _require_time(time, settings.kind)
            parts = _paper(ordinal, length, time, settings)
            why = f"there are {sum(map(len, parts.values()))} examples in all, to be cut by {settings.ratios}"
        case GlobalTimeSplit():
            _require_time(time, settings.kind)
            parts = _global_time(ordinal, time, settings)
            why = f"{len(time)} events at {len(np.unique(time))} times, cut by {settings.ratios}"
        case LeaveOneOutSplit():
            parts = _leave_one_out(ordinal, length, time)
            why = f"it takes a user with 4 events, and the longest has {length.max()}"
    if empty := [part for part in SPLITS if not len(parts[part])]:
        raise UserError(f"the {settings.kind} split leaves no {' and no '.join(empty)} example: {why}")
    return parts


def sample_positions(parts: Positions, settings: SplitSettings) -> Positions:
    """Draw the examples that each part keeps (see `sample_train` and its sisters), in their old order."""
    sizes = (settings.sample_train, settings.sample_validation, settings.sample_test)
    return {
        part: _sample(parts[part], size, settings.sample_seed, part) for part, size in zip(SPLITS, sizes, strict=True)
    }


def _sample(positions: NDArray[np.int64], size: int | None, seed: int, part: Split) -> NDArray[np.int64]:
    if size is None or size >= len(positions):
        return positions
    chosen = numpy_generator(seed, "sample", part).choice(len(positions), size=size, replace=False)
    return positions[np.sort(chosen)]


def _paper(
    ordinal: NDArray[np.int64], length: NDArray[np.int64], time: NDArray[np.generic], settings: PaperSplit
) -> Positions:
    is_target = np.where(
        length > settings.history, ordinal >= settings.history, (ordinal == length - 1) & (ordinal > 0)
    )
    targets = _in_time_order(np.flatnonzero(is_target), time)
    first, second = _cuts(len(targets), settings.ratios)
    return {"train": targets[:first], "validation": targets[first:second], "test": targets[second:]}


def _global_time(ordinal: NDArray[np.int64], time: NDArray[np.generic], settings: GlobalTimeSplit) -> Positions:
    first, second = (np.sort(time)[cut] for cut in _cuts(len(time), settings.ratios))
    targets = _in_time_order(np.flatnonzero(ordinal > 0), time)
    when = time[targets]
    return {
        "train": targets[when < first],
        "validation": targets[(when >= first) & (when < second)],
        "test": targets[when >= second],
    }


def _leave_one_out(ordinal: NDArray[np.int64], length: NDArray[np.int64], time: NDArray[np.generic]) -> Positions:
    left = length - 1 - ordinal
    masks = {"train": left >= 2, "validation": left == 1, "test": left == 0}
    return {part: _in_time_order(np.flatnonzero(masks[part] & (ordinal > 0)), time) for part in SPLITS}


def _in_time_order(positions: NDArray[np.int64], time: NDArray[np.generic]) -> NDArray[np.int64]:
    return positions[np.argsort(time[positions], kind="stable")]


def _cuts(count: int, ratios: tuple[float, float, float]) -> tuple[int, int]:
    """Where the first and the second part end; exact, for 0.7 + 0.2 is less than 0.9 in floating point."""
    first, _, third = (Fraction(str(ratio)) for ratio in ratios)
    return int(count * first), int(count * (1 - third))


def _require_time(time: NDArray[np.generic], kind: str) -> None:
    if len(time) and time.min() == time.max():
        raise UserError(
            f"all events are at one time ({time[0]}), so the {kind} split has no order to cut; "
            "leave-one-out takes the order of the file"
        )

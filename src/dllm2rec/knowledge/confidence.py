"""How sure a teacher is: its distances as probabilities over the catalogue, and how far those may be trusted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar


def likeliest_temperature(
    *,
    ranked_items: NDArray[np.integer],
    distances: NDArray[np.floating],
    target: NDArray[np.integer],
    num_items: int,
) -> float:
    """Find the temperature T under which ``softmax(-distances / T)`` gives the true items the largest likelihood.

    The softmax is over the catalogue: each item outside a list counts with the distance of the list's last item, which
    is the nearest that it can be. So a teacher that rarely lists the true item is not taken for a sharp one, and one
    that does is not taken for a flat one because its lists are long.

    Args:
        ranked_items: `[N, K]`, best first.
        distances: `[N, K]`, of the listed items; an item at an infinite distance counts as one outside the list.
        target: `[N]`, the true next items.
        num_items: V.

    Returns:
        T, in the unit of the distances; 1 where nothing is listed.
    """
    listed = np.isfinite(distances)
    some = listed.any(axis=1)
    if not some.any():
        return 1.0
    listed, items, target = listed[some], ranked_items[some], target[some]
    kept = distances[some].astype(np.float64)
    relative = kept - kept.min(axis=1, keepdims=True)
    last = np.where(listed, relative, 0.0).max(axis=1)
    spread = float(last.mean()) or 1.0
    relative, last = relative / spread, last / spread
    hits = (items == target[:, None]) & listed
    own = np.where(hits.any(axis=1), np.where(hits, relative, 0.0).sum(axis=1), last)
    outside = num_items - listed.sum(axis=1)

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        total = np.exp(-relative / temperature).sum(axis=1) + outside * np.exp(-last / temperature)
        return float(np.mean(np.log(total) + own / temperature))

    return spread * float(np.exp(minimize_scalar(loss, bounds=(-5.0, 3.0), method="bounded").x))


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Lists as probabilities over the catalogue, aligned by row; each row with all items that it leaves out sums to 1.

    Attributes:
        items: `[N, K]`, best first.
        listed: `[N, K]` float64, of each listed item.
        outside: `[N]` float64, of each item that is not listed.
    """

    items: NDArray[np.integer]
    listed: NDArray[np.float64]
    outside: NDArray[np.float64]

    def of(self, item: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the probability of one item a row, `[N]`."""
        hits = self.items == item[:, None]
        return np.where(hits.any(axis=1), (self.listed * hits).sum(axis=1), self.outside)


def shares(
    *, ranked_items: NDArray[np.integer], distances: NDArray[np.floating], temperature: float, num_items: int
) -> Shares:
    """Compute ``softmax(-distances / temperature)`` over the catalogue, as `likeliest_temperature` means it.

    Args:
        ranked_items: `[N, K]`, best first.
        distances: `[N, K]`, of the listed items.
        temperature: T, in the unit of the distances.
        num_items: V.
    """
    nearest = distances.min(axis=1, keepdims=True)  # others' lists need not be in the order of their distances
    scaled = np.exp(-(distances - nearest).astype(np.float64) / temperature)
    least = scaled.min(axis=1)
    total = scaled.sum(axis=1) + (num_items - scaled.shape[1]) * least
    return Shares(items=ranked_items, listed=scaled / total[:, None], outside=least / total)


def calibration_error(confidence: NDArray[np.floating], hit: NDArray[np.bool_], *, bins: int = 10) -> float:
    """Compute the expected calibration error over bins of equal mass (Naeini et al. 2015; Nguyen & O'Connor 2015).

    The examples, in order of their confidence, are cut into bins of the same size; the error is the mean over examples
    of the distance between their bin's mean confidence and its share of hits.

    Args:
        confidence: `[N]`, probability that the best item is the true one.
        hit: `[N]`, whether it is.
        bins: how many; empty ones, where there are fewer examples, count nothing.

    >>> calibration_error(np.array([0.2, 0.2, 0.7, 0.9]), np.array([False, False, True, False]), bins=2)
    0.25
    """
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - hit)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, bins)) / len(gaps))


def reliability(
    probability: NDArray[np.floating], hit: NDArray[np.bool_], *, bins: int = 10
) -> list[tuple[float, float]]:
    """Compare what was expected with what came, over bins that expect equally many hits each.

    Args:
        probability: of anything, that it is the true item; any shape.
        hit: whether it is, of the same shape.
        bins: how many; one without anything in it is left out.

    Returns:
        For each bin, from the least probable, its mean probability and its share of hits.

    >>> reliability(np.array([0.1, 0.1, 0.2, 0.4]), np.array([False, False, True, True]), bins=2)
    [(0.13333333333333333, 0.3333333333333333), (0.4, 1.0)]
    """
    flat, came = probability.ravel().astype(np.float64), hit.ravel()
    order = np.argsort(flat, kind="stable")
    flat, came = flat[order], came[order]
    total = np.cumsum(flat)
    place = np.searchsorted(np.linspace(0, total[-1], bins + 1)[1:-1] * (1 + 1e-12), total) if len(flat) else total
    parts = (place == number for number in range(bins))
    return [(float(flat[part].mean()), float(came[part].mean())) for part in parts if part.any()]

"""How sure a teacher is: its distances as probabilities over the catalogue, and how far those may be trusted."""

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
        distances: `[N, K]`, of the listed items.
        target: `[N]`, the true next items.
        num_items: V.

    Returns:
        T, in the unit of the distances.
    """
    relative = (distances - distances[:, :1]).astype(np.float64)
    spread = float(relative[:, -1].mean()) or 1.0
    relative /= spread
    hits = ranked_items == target[:, None]
    own = np.where(hits.any(axis=1), (relative * hits).sum(axis=1), relative[:, -1])
    outside = num_items - relative.shape[1]

    def loss(log_temperature: float) -> float:
        scaled = np.exp(-relative / np.exp(log_temperature))
        total = scaled.sum(axis=1) + outside * scaled[:, -1]
        return float(np.mean(np.log(total) + own / np.exp(log_temperature)))

    return spread * float(np.exp(minimize_scalar(loss, bounds=(-5.0, 3.0), method="bounded").x))

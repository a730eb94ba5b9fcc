"""How a text vector becomes the row of an item, in numpy: ``e = w_e g((z - mean) / deviation)``, and a borrowed offset.

Where the student counts text neighbours, the direction of the scaled text vector stands beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dllm2rec.core.arrays import borrowed_offsets, unit_rows
from dllm2rec.core.errors import UserError
from dllm2rec.serving.bundle import TEXT, Bundle, Floats

NEAR = 1e-2  # of the largest value of the probes; another precision of one encoder stays well below


@dataclass(frozen=True, kw_only=True)
class TextProjection:
    """The projector of a student, as its bundle keeps it.

    Attributes:
        path: of the bundle.
        tensors: `mean`, `deviation` `[Dt]`, weights and biases of one, two or no layers, `probes` `[P, Dt]`; where new
            items borrow offsets, `known` `[m]`, the rows that lend them, and `projected` `[m, D]`, what it gives; where
            text neighbours are counted, the basis of their `directions` `[Dt, P]`, times the root of their weight, or
            that root alone, where they are kept as they are.
        weight: ``w_e``.
        probes: rows of the items whose vectors are the probes.
        bias: what is added to the score of an item that training never saw.
    """

    path: Path
    tensors: dict[str, Floats]
    weight: float
    probes: list[int]
    bias: float

    @classmethod
    def load(cls, bundle: Bundle) -> "TextProjection":
        """Read the projector of a bundle.

        Raises:
            UserError: its student does not read text where it writes scores.
        """
        text = bundle.manifest.text
        if text is None and bundle.is_baseline:
            raise UserError(
                f"{bundle.path}: {bundle.manifest.student} reads no titles, or validation gave them no weight, so an "
                "item that training never saw can't be recommended; export it with --knowledge that has item vectors"
            )
        if text is None:
            raise UserError(
                f"{bundle.path}: {bundle.manifest.student} has no output tied to text, so an item that training never "
                "saw can't be recommended; train one that reads text: `dllm2rec train DATASET --knowledge KNOWLEDGE`, "
                "with knowledge that has item vectors (such as --teacher blend or encoder gives)"
            )
        tensors = load_file(bundle.path / TEXT)
        return cls(path=bundle.path, tensors=tensors, weight=text.weight, probes=text.probes, bias=text.bias)

    def require_same_encoder(self, vectors: Floats, name: str) -> None:
        """Compare the vectors that an encoder gives the probes, `[P, Dt]`, with those of training.

        Raises:
            UserError: it is another encoder.
        """
        known = self.tensors["probes"]
        if vectors.shape != known.shape or np.abs(vectors - known).max() > NEAR * np.abs(known).max():
            raise UserError(
                f"{name}: gives titles of the catalogue other vectors than {self.path} was trained on; name the "
                "encoder that made those with --model, or give the vectors of the new items with --vectors"
            )

    def __call__(self, vectors: Floats, table: Floats) -> Floats:
        """Turn text vectors `[N, Dt]` of new items into rows of the table `[V, D]`, with neighbours `[V, D + P]`."""
        tensors = self.tensors
        scaled: Floats = (vectors - tensors["mean"]) / tensors["deviation"]
        own = self._own(scaled, table)
        return np.hstack([own, np.dot(unit_rows(scaled), tensors["directions"])]) if "directions" in tensors else own

    def _own(self, scaled: Floats, table: Floats) -> Floats:
        tensors = self.tensors
        if "first.weight" not in tensors:  # counting, which has learned nothing of text
            return np.zeros((len(scaled), 0), np.float32)
        layer = _linear(scaled, tensors["first.weight"], tensors["first.bias"])
        if "second.weight" in tensors:
            layer = _linear(np.maximum(layer, 0), tensors["second.weight"], tensors["second.bias"])
        projected: Floats = layer * np.float32(self.weight)
        if "projected" not in tensors:
            return projected
        known = tensors["projected"].astype(np.float32)
        offsets = table[tensors["known"], : known.shape[1]] - known
        return projected + borrowed_offsets(projected, known=known, offsets=offsets)


def _linear(given: Floats, weight: Floats, bias: Floats) -> Floats:
    result: Floats = given @ weight.T + bias
    return result

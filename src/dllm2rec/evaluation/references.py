"""References beside the runs of a table: which ones, with what weight of text, and how they rank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm2rec.data import Dataset, Examples, TrainOn
from dllm2rec.data.demand import measure_demand
from dllm2rec.evaluation.demand import LEFT_OUT, DemandWeights, adjusted, choose_demand, subsample
from dllm2rec.evaluation.metrics import TOP, ndcg
from dllm2rec.evaluation.ranks import (
    SCORES_AT_ONCE,
    Ranks,
    ScoreFunction,
    mean_ranks,
    rank_targets,
    without_history,
)
from dllm2rec.teachers.ease import EASESettings
from dllm2rec.teachers.references import (
    Blend,
    BlendSettings,
    ItemKNNSettings,
    PopularitySettings,
    Reference,
    ReferenceSettings,
    fit_item_knn,
    fit_reference,
    fit_text,
)

COUNTING, COUNTING_WITH_TEXT = "item-kNN", "item-kNN + text"
"""References that `dllm2rec export DATASET` makes a bundle of, following demand."""
EASE_ITEMS = 12_000
"""Items seen in training up to which tables have EASE: its fit takes some fifteen seconds by then."""
REFERENCES: dict[str, ReferenceSettings] = {
    "popularity": PopularitySettings(),
    "recent popularity": PopularitySettings(recent=0.1),
    COUNTING: ItemKNNSettings(),
    "EASE": EASESettings(max_items=EASE_ITEMS),
}
TEXT_REFERENCES: dict[str, ReferenceSettings] = {COUNTING_WITH_TEXT: BlendSettings()}
TEXT_WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of text in a blend, to choose from."""
Follows = Literal["nothing", "history", "ever", "demand"]


def affordable_references(dataset: Dataset, train_on: TrainOn) -> dict[str, ReferenceSettings]:
    """Return what a table has besides text: all of them, but EASE only where its items are few enough."""
    seen = np.count_nonzero(dataset.train_counts(train_on))
    return {
        name: settings
        for name, settings in REFERENCES.items()
        if not isinstance(settings, EASESettings) or seen <= settings.max_items
    }


def reference_ranks(
    settings: ReferenceSettings,
    dataset: Dataset,
    examples: Examples,
    *,
    mask_history: bool = False,
    train_on: TrainOn = "positions",
    item_vectors: NDArray[np.float32] | None = None,
    follows: Follows = "nothing",
) -> Ranks:
    """Fit a reference and rank with it, see `reference_score`."""
    score = reference_score(settings, dataset, train_on=train_on, item_vectors=item_vectors, follows=follows)
    return rank_targets(score, examples, mask_history=mask_history, top_k=TOP)


def reference_score(
    settings: ReferenceSettings,
    dataset: Dataset,
    *,
    train_on: TrainOn = "positions",
    item_vectors: NDArray[np.float32] | None = None,
    follows: Follows = "nothing",
) -> ScoreFunction:
    """Fit a reference to the sequences that ``train_on`` names.

    A weight of text that is open is chosen first, see `with_text_weight`. It can do what students do after training:
    leave the items of a history out, or all that was `ever` chosen, or follow the demand after the cut, with weights
    chosen on validation.
    """
    settings = with_text_weight(settings, dataset, item_vectors=item_vectors, train_on=train_on)
    sequences = dataset.training_sequences(train_on)
    reference = fit_reference(settings, dataset, item_vectors=item_vectors, sequences=sequences)
    if follows == "demand":
        return follow_demand(reference, dataset, train_on).score
    again = 0.0 if follows == "nothing" else LEFT_OUT
    return adjusted(
        score_with_reference(reference), reads=dataset.manifest.history, again=again, ever=follows == "ever"
    )


@dataclass(frozen=True, kw_only=True)
class Following:
    """A reference that follows the demand after the cut.

    Attributes:
        reference: with the weight of text that it has then.
        weights: chosen on validation.
        shift: `[V]`, what is added to the score of each item.
        reads: how many items of a history the reference is given.
    """

    reference: Reference
    weights: DemandWeights
    shift: NDArray[np.float32]
    reads: int

    @property
    def score(self) -> ScoreFunction:
        """Score with all of it."""
        return adjusted(
            score_with_reference(self.reference),
            reads=self.reads,
            shift=self.shift,
            again=self.weights.again,
            ever=self.weights.ever,
        )


def follow_demand(reference: Reference, dataset: Dataset, train_on: TrainOn) -> Following:
    """Let a reference follow demand as students do, with weights chosen on validation; text's, where it reads text.

    Args:
        reference: fitted to what ``train_on`` names.
        dataset: gives validation examples, and demand at the cut.
        train_on: see `measure_demand`.
    """
    measured = measure_demand(dataset, train_on)
    text = score_with_reference(reference.text) if isinstance(reference, Blend) else None
    weights = choose_demand(score_with_reference(reference), dataset.examples("validation"), measured, text=text)
    if isinstance(reference, Blend):
        reference = replace(reference, text_weight=reference.text_weight + weights.text)
    return Following(
        reference=reference, weights=weights, shift=weights.shift(measured), reads=dataset.manifest.history
    )


def with_text_weight(
    settings: ReferenceSettings, dataset: Dataset, *, item_vectors: NDArray[np.float32] | None, train_on: TrainOn
) -> ReferenceSettings:
    """Settle what a reference leaves open: the weight of text in a blend, by NDCG@20 on validation.

    Where people rarely choose again what they chose, the items of histories are left out of these rankings: text's
    nearest item is nearly always one of the history, which tells nothing of how good it is as a neighbour. Of equals
    the smallest weight is taken. A large catalogue is tried on a part of the examples, see `subsample`.

    Args:
        settings: of any reference; returned as they are where nothing is open.
        dataset: gives validation examples and training sequences.
        item_vectors: `[V, D]`, where the reference reads text.
        train_on: which sequences the reference is fitted to.

    Raises:
        UserError: item vectors are needed and absent, or of another catalogue's size.
    """
    if not isinstance(settings, BlendSettings) or settings.text_weight is not None:
        return settings
    return settings.model_copy(update={"text_weight": _weigh_text(settings, dataset, item_vectors, train_on)[1]})


def best_vectors(
    candidates: Sequence[NDArray[np.float32]], dataset: Dataset, train_on: TrainOn
) -> NDArray[np.float32] | None:
    """Return the item vectors with which counting and text are best on validation; the first of equals, None of none.

    Args:
        candidates: `[V, D]` each.
        dataset: gives validation examples and training sequences.
        train_on: which sequences counting is fitted to.
    """
    distinct: list[NDArray[np.float32]] = []
    for vectors in candidates:
        if not any(np.array_equal(vectors, other) for other in distinct):
            distinct.append(vectors)
    if len(distinct) < 2:
        return next(iter(distinct), None)
    return max(distinct, key=lambda vectors: _weigh_text(BlendSettings(), dataset, vectors, train_on)[0])


def _weigh_text(
    settings: BlendSettings, dataset: Dataset, item_vectors: NDArray[np.float32] | None, train_on: TrainOn
) -> tuple[float, float]:
    """Return the best NDCG@20 on validation of counting and text, and text's weight there; see `with_text_weight`."""
    text = fit_text(settings.text, item_vectors, num_items=dataset.num_items)
    knn = fit_item_knn(settings.knn, dataset.training_sequences(train_on), num_items=dataset.num_items)
    some = subsample(dataset.examples("validation"))
    rare = dataset.training_examples(train_on).repeats_are_rare

    total = np.zeros(len(TEXT_WEIGHTS))
    for part in some.batches(max(1, SCORES_AT_ONCE // dataset.num_items)):
        history, target = (torch.from_numpy(one.astype(np.int64)) for one in (part.history, part.target[:, None]))
        counted, near = (torch.from_numpy(one.scores(part.history)) for one in (knn, text))
        for place, weight in enumerate(TEXT_WEIGHTS):
            scores = counted + weight * near
            ranks = mean_ranks(without_history(scores, history, target) if rare else scores, target)
            total[place] += ndcg(ranks, TOP).sum()
    best = int(np.argmax(total))
    return float(total[best]) / max(1, len(some)), TEXT_WEIGHTS[best]


def score_with_reference(reference: Reference) -> ScoreFunction:
    """Return the score function of a reference, which works on numpy arrays."""

    def score(history: Tensor) -> Tensor:
        return torch.from_numpy(reference.scores(history.numpy()))

    return score

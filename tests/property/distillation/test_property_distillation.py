import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dllm2rec.distillation.distances import normalise_distances, normalise_listed_distances
from dllm2rec.distillation.weights import (
    combine,
    consistency_weights,
    item_confidence,
    kth_largest,
    position_weights,
    sequence_confidence,
)

distances = hnp.arrays("int32", 12, elements=st.integers(0, 10_000))
lists = hnp.arrays("int32", (4, 6), elements=st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@given(values=distances, factor=st.floats(1e-3, 1e3), shift=st.floats(0, 1e4))
def test_the_unit_of_the_distance_changes_no_confidence(values, factor: float, shift: float) -> None:
    before = torch.from_numpy(values).double()
    after = before * factor + shift
    weights = sequence_confidence(normalise_distances(before), size=10)
    torch.testing.assert_close(sequence_confidence(normalise_distances(after), size=10), weights, rtol=1e-3, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(values=lists, factor=st.floats(1e-3, 1e3), shifts=hnp.arrays("float64", (4, 1), elements=st.floats(0, 1e4)))
def test_the_unit_and_origin_of_a_list_change_no_confidence(values, factor: float, shifts) -> None:
    before = torch.from_numpy(values).double()
    after = before * factor + torch.from_numpy(shifts)
    weights = item_confidence(normalise_listed_distances(before))
    torch.testing.assert_close(item_confidence(normalise_listed_distances(after)), weights, rtol=1e-3, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(values=distances)
def test_a_nearer_text_never_weighs_less_and_no_weight_is_zero(values) -> None:
    weights = sequence_confidence(normalise_distances(torch.from_numpy(values)), size=10).numpy()
    assert (weights > 0).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(weights[order]) <= 1e-7).all()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 50), beta=st.floats(0.1, 20))
def test_position_weights_fall_and_sum_to_one(count: int, beta: float) -> None:
    weights = position_weights(torch.arange(1, count + 1), beta=beta)
    assert abs(weights.sum().item() - 1) < 1e-5
    assert (weights.diff() <= 0).all()


@settings(max_examples=60, deadline=None)
@given(
    scores=hnp.arrays("float32", (3, 400), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])),
    k=st.integers(1, 400),
)
def test_the_kth_largest_is_the_kth_of_the_sorted_row(scores, k: int) -> None:
    values = torch.from_numpy(scores)
    assert torch.equal(kth_largest(values, k), values.sort(dim=1, descending=True).values[:, k - 1])


@settings(max_examples=60, deadline=None)
@given(scores=hnp.arrays("float64", (2, 30), elements=st.floats(-5, 5), unique=True), k=st.integers(1, 9))
def test_the_students_own_top_k_is_consistent_and_nothing_else(scores, k: int) -> None:
    values = torch.from_numpy(scores)
    order = values.argsort(dim=1, descending=True)
    assert (consistency_weights(values, order[:, :k]) == 1).all()
    assert (consistency_weights(values, order[:, k : 2 * k]) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    confidence=hnp.arrays("float32", (3, 1), elements=st.floats(0, 5, width=32)),
    consistency=hnp.arrays("float32", (3, 4), elements=st.sampled_from([0.0, 1.0])),
    gammas=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_renormalised_weights_sum_to_one(confidence, consistency, gammas: tuple[float, float, float]) -> None:
    parts = {
        "position": position_weights(torch.arange(1, 5), beta=1.0),
        "confidence": torch.from_numpy(confidence),
        "consistency": torch.from_numpy(consistency),
        "gamma_position": gammas[0],
        "gamma_confidence": gammas[1],
        "gamma_consistency": gammas[2],
    }
    raw, normal = combine(**parts, renormalise=False), combine(**parts, renormalise=True)
    assume((raw.sum(dim=1) > 1e-4).all())
    torch.testing.assert_close(normal.sum(dim=1), torch.ones(3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normal * raw.sum(dim=1, keepdim=True), raw, rtol=1e-4, atol=1e-5)

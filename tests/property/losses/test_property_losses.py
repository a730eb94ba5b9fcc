import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dllm2rec.core.seeding import torch_generator
from dllm2rec.losses.bce import binary_cross_entropy
from dllm2rec.losses.dros import log_sum_exp_squares, robust_terms
from dllm2rec.losses.negatives import uniform_negatives

scores = hnp.arrays("float64", (3, 8), elements=st.floats(-25, 25))


@settings(max_examples=60, deadline=None)
@given(scores=scores, seed=st.integers(0, 99))
def test_robust_terms_do_not_depend_on_the_order_of_the_catalogue(scores, seed: int) -> None:
    values, scale = torch.from_numpy(scores), torch.linspace(0.4, 0.9, 8).double()
    order = torch.randperm(8, generator=torch_generator(seed, "order"))

    def terms(s: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        items = torch.arange(8).expand(3, 8)
        return robust_terms(s, items, p, chosen=s, total=log_sum_exp_squares(s, p))

    torch.testing.assert_close(terms(values[:, order], scale[order]), terms(values, scale)[:, order])


@settings(max_examples=60, deadline=None)
@given(
    target=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    count=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_negatives_are_items_and_never_the_target(target: list[int], count: int, seed: int) -> None:
    targets = torch.tensor(target)
    drawn = uniform_negatives(targets, num_items=7, count=count, generator=torch_generator(seed, "x"))
    assert drawn.shape == (len(target), count)
    assert ((drawn >= 0) & (drawn < 7)).all()
    assert not (drawn == targets.unsqueeze(1)).any()


@settings(max_examples=60, deadline=None)
@given(positive=hnp.arrays("float64", 4, elements=st.floats(-20, 20)), push=st.floats(0.01, 5))
def test_a_better_score_of_the_target_means_less_loss(positive, push: float) -> None:
    negatives = torch.zeros(4, 2, dtype=torch.float64)
    values = torch.from_numpy(positive)
    assert binary_cross_entropy(values + push, negatives) < binary_cross_entropy(values, negatives)

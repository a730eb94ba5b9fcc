import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm2rec.teachers.mixture import fit_weights, improve_weights


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the true items, and who labelled what: every example has a label."""
    teachers, count = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    floats, flags = st.floats(1e-6, 1), st.booleans()
    share = draw(st.lists(floats, min_size=count * teachers, max_size=count * teachers))
    labelled = draw(st.lists(flags, min_size=count * teachers, max_size=count * teachers))
    known = np.array(labelled).reshape(count, teachers)
    known[np.arange(count), np.arange(count) % teachers] = True
    return np.array(share).reshape(count, teachers), known


def likelihood(share: np.ndarray, labelled: np.ndarray, weights: np.ndarray) -> float:
    present = labelled * weights
    return float(np.log((present * share).sum(axis=1) / present.sum(axis=1)).mean())


@given(answers=answers())
@settings(max_examples=100, deadline=None)
def test_no_step_makes_the_answers_less_likely(answers: tuple[np.ndarray, np.ndarray]) -> None:
    share, labelled = answers
    weights = np.full(share.shape[1], 1 / share.shape[1])
    for _ in range(20):
        improved = improve_weights(share, labelled, weights)
        assert improved.min() > 0
        assert np.isclose(improved.sum(), 1)
        assert likelihood(share, labelled, improved) >= likelihood(share, labelled, weights) - 1e-9
        weights = improved


@given(answers=answers(), data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_order_of_examples_and_teachers_does_not_matter(
    answers: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    share, labelled = answers
    rows = np.array(data.draw(st.permutations(range(share.shape[0]))))
    columns = np.array(data.draw(st.permutations(range(share.shape[1]))))
    found = fit_weights(share, labelled, iterations=200)
    other = fit_weights(share[rows][:, columns], labelled[rows][:, columns], iterations=200)
    np.testing.assert_allclose(other, found[columns], atol=1e-6)

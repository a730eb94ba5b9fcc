import numpy as np
import pytest
import torch

from dllm2rec.data import Examples
from dllm2rec.data.examples import Past
from dllm2rec.evaluation import metrics
from dllm2rec.evaluation.agreement import hit_rate_by_overlap, overlap, win_ratio
from dllm2rec.evaluation.demand import adjusted
from dllm2rec.evaluation.latency import seconds_per_1000
from dllm2rec.evaluation.ranks import histories_for, rank_targets, ranks_from_lists, rows_at_once
from dllm2rec.evaluation.slices import history_slices, popularity_slices


def examples_of(history: list[list[int]], target: list[int], num_items: int) -> Examples:
    count = len(target)
    return Examples(
        example_id=np.arange(count, dtype=np.int64) * 10,
        user=np.arange(count, dtype=np.int32),
        history=np.array(history, np.int32),
        target=np.array(target, np.int32),
        time=np.zeros(count, np.int64),
        num_items=num_items,
    )


def test_a_model_that_scores_everything_equally_gets_the_middle_rank() -> None:
    examples = examples_of([[0], [1]], [0, 4], 5)
    ranks = rank_targets(lambda history: torch.zeros(len(history), 5), examples, top_k=3)
    assert ranks.rank.tolist() == [3.0, 3.0]
    assert ranks.top_items is not None
    assert ranks.top_items.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_nan_and_wrong_shapes_are_refused_but_infinities_are_scores() -> None:
    examples = examples_of([[0]], [1], 3)
    with pytest.raises(ValueError, match="NaN"):
        rank_targets(lambda _: torch.tensor([[0.0, float("nan"), 1.0]]), examples)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        rank_targets(lambda _: torch.zeros(1, 4), examples)
    ranks = rank_targets(lambda _: torch.tensor([[float("inf"), 1.0, float("-inf")]]), examples)
    assert ranks.rank.tolist() == [2.0]


def test_masking_never_hides_the_target() -> None:
    examples = examples_of([[0, 1, 2]], [1], 4)
    scores = torch.tensor([[9.0, 1.0, 8.0, 5.0]])
    assert rank_targets(lambda _: scores, examples).rank.tolist() == [4.0]
    assert rank_targets(lambda _: scores, examples, mask_history=True).rank.tolist() == [2.0]


def test_who_reads_all_is_given_all_and_nobody_else() -> None:
    items, some = np.array([3, 1, 2, 0, 3], np.int32), examples_of([[2, 0]], [3], 4)
    past = Past(items=items, target=np.array([4]), length=np.array([4]))
    examples = Examples(**{**vars(some), "past": past})
    widths: list[int] = []

    def score(history: torch.Tensor) -> torch.Tensor:
        widths.append(history.shape[1])
        return torch.zeros(len(history), 4)

    rank_targets(score, examples)
    rank_targets(adjusted(score, reads=2, again=-1.0), examples)
    assert widths == [2, 2]
    everything = adjusted(score, reads=2, again=-1.0, ever=True)
    assert rank_targets(everything, examples).rank.tolist() == [2.5]  # all four were chosen, so all are equal
    assert widths == [2, 2, 2]  # what stands inside still reads two
    assert histories_for(everything, examples).tolist() == [[3, 1, 2, 0]]
    assert (rows_at_once(everything, examples, 8), rows_at_once(score, examples, 8)) == (2, 2)
    assert rows_at_once(adjusted(everything, reads=2), examples_of([[2] * 9], [3], 4), 18) == 2


def test_ranks_keep_the_precision_of_the_scores() -> None:
    examples = examples_of([[0]], [0], 3)
    for scores, rank in (
        (torch.tensor([[1.0, 1.0 + 1e-12, 0.0]], dtype=torch.float64), 2.0),
        (torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.bfloat16), 2.0),
    ):
        ranks = rank_targets(lambda _, scores=scores: scores, examples, top_k=2)
        assert ranks.rank.tolist() == [rank]
        assert ranks.top_items is not None
        assert ranks.top_items.tolist() == [[1, 0]]


def test_a_target_outside_the_list_has_no_rank() -> None:
    examples = examples_of([[0], [0]], [2, 4], 5)
    ranks = ranks_from_lists(np.array([[1, 2], [1, 2]], np.int32), examples)
    assert ranks.rank.tolist() == [2.0, np.inf]
    assert metrics.summary(ranks.rank, ks=(2,))["HR@2"] == 0.5


def test_equal_distances_of_a_list_share_their_rank() -> None:
    lists = np.tile(np.array([[3, 1, 0, 2]], np.int32), (5, 1))
    examples = examples_of([[0]] * 5, [3, 1, 0, 2, 4], 9)
    tied = np.tile(np.array([[0.0, 1.0, 1.0, 2.0]], np.float32), (5, 1))
    assert ranks_from_lists(lists, examples, distances=tied).rank.tolist() == [1.0, 2.5, 2.5, 4.0, np.inf]
    open_ended = np.tile(np.array([[0.0, 1.0, 1.0, 1.0]], np.float32), (5, 1))  # as item-kNN's zeros
    assert ranks_from_lists(lists, examples, distances=open_ended).rank.tolist() == [1.0, *[np.inf] * 4]


def test_a_list_of_the_whole_catalogue_has_no_open_end() -> None:
    examples = examples_of([[0]] * 2, [1, 2], 3)
    lists, distances = np.array([[0, 1, 2]] * 2, np.int32), np.array([[0.0, 1.0, 1.0]] * 2, np.float32)
    assert ranks_from_lists(lists, examples, distances=distances).rank.tolist() == [2.5, 2.5]


@pytest.mark.parametrize("bad", [[0.5], [float("nan")]])
def test_metrics_refuse_what_is_no_rank(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        metrics.summary(np.array(bad))


def test_metrics_need_examples_and_a_k() -> None:
    with pytest.raises(ValueError, match="no example"):
        metrics.summary(np.array([]))
    with pytest.raises(ValueError, match="k must be"):
        metrics.hit_rate(np.array([1.0]), 0)


def test_win_ratio_counts_only_where_two_differ() -> None:
    result = win_ratio(np.array([1.0, 0.5, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert (result.first, result.second, result.differing) == (1 / 3, 2 / 3, 3)
    assert win_ratio(np.zeros(2), np.zeros(2)).differing == 0


def test_overlap_by_hand() -> None:
    first, second = np.array([[0, 1, 2, 3]], np.int32), np.array([[3, 9, 1, 8]], np.int32)
    assert overlap(first, second) == 0.5
    hits = hit_rate_by_overlap(first, second, np.array([3], np.int32))
    assert (hits.both, hits.one) == (0.5, 0.0)
    hits = hit_rate_by_overlap(first, second, np.array([9], np.int32))
    assert (hits.both, hits.one) == (0.0, 0.25)


def test_what_fills_up_a_short_list_is_no_item() -> None:
    short, full = (
        np.array([[3, 7, -1, -1], [1, -1, -1, -1]], np.int32),
        np.array([[3, 4, 5, 6], [2, 3, 4, 5]], np.int32),
    )
    assert overlap(short, full) == pytest.approx(1 / 3)
    assert overlap(full, short) == 1 / 8
    hits = hit_rate_by_overlap(short, full, np.array([3, 5], np.int32))
    assert (hits.both, hits.one) == (1.0, 1 / 9)  # 7 and 4 5 6, 1 and 2 3 4 5
    none = np.full((2, 4), -1, np.int32)
    assert overlap(none, full) == overlap(full, none) == 0.0
    assert hit_rate_by_overlap(none, none, np.array([3, 5], np.int32)).one == 0.0


def test_slices_cover_every_example_once() -> None:
    counts = np.array([0, 1, 1, 2, 5, 9, 30])
    history = [[7] * (10 - n) + [0] * n for n in (1, 2, 3, 5, 6, 9, 10)]
    examples = examples_of(history, [0, 1, 2, 3, 4, 5, 6], 7)
    popularity = popularity_slices(examples, counts)
    assert popularity[0].name == "unseen in training"
    assert popularity[0].rows.tolist() == [True] + [False] * 6
    for slices in (popularity, history_slices(examples)):
        assert np.sum([one.rows for one in slices], axis=0).tolist() == [1] * 7
    assert [int(one.rows.sum()) for one in history_slices(examples)] == [2, 2, 2, 1]


def test_latency_is_per_thousand_users_however_few_are_given() -> None:
    seen: list[int] = []

    def score(history: torch.Tensor) -> torch.Tensor:
        seen.append(len(history))
        return torch.zeros(len(history), 3)

    assert seconds_per_1000(score, examples_of([[0]], [1], 3), repeats=2) > 0
    assert sum(seen) == 3000

import numpy as np
import pytest
import torch

from dllm2rec.data import Examples
from dllm2rec.data.batches import batches


def examples(count: int) -> Examples:
    row = np.arange(count, dtype=np.int32)
    return Examples(
        example_id=row.astype(np.int64),
        user=row,
        history=np.stack([row, row + 1], axis=1),
        target=row + 2,
        time=row.astype(np.int64),
        num_items=count + 3,
    )


def test_order_dtype_and_short_last_batch() -> None:
    parts = list(batches(examples(5), batch_size=2))

    assert [len(part.row) for part in parts] == [2, 2, 1]
    assert torch.cat([part.row for part in parts]).tolist() == [0, 1, 2, 3, 4]
    assert parts[1].history.tolist() == [[2, 3], [3, 4]]
    assert parts[1].target.tolist() == [4, 5]
    assert all(tensor.dtype == torch.int64 for tensor in (parts[0].history, parts[0].target, parts[0].row))


def test_shuffle_is_seeded_and_keeps_rows_together() -> None:
    def rows(seed: int) -> list[int]:
        parts = list(batches(examples(100), batch_size=7, generator=torch.Generator().manual_seed(seed)))
        for part in parts:
            assert torch.equal(part.target, part.row + 2)
            assert torch.equal(part.history[:, 0], part.row)
        return torch.cat([part.row for part in parts]).tolist()

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)
    assert sorted(rows(1)) == list(range(100))


def test_a_second_pass_with_one_generator_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    first = next(batches(examples(100), batch_size=100, generator=generator)).row
    second = next(batches(examples(100), batch_size=100, generator=generator)).row

    assert not torch.equal(first, second)


def test_no_example_no_batch() -> None:
    assert list(batches(examples(0), batch_size=4)) == []


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        batches(examples(3), batch_size=0)

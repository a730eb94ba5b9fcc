"""Join labels to examples by `example_id`, never by position."""

import numpy as np
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.data.dataset import Dataset
from dllm2rec.data.examples import Examples
from dllm2rec.knowledge.store import Knowledge


def align(knowledge: Knowledge, dataset: Dataset, examples: Examples) -> NDArray[np.int64]:
    """Find the label of each example.

    Args:
        knowledge: of ``dataset``.
        dataset: that ``examples`` are from.
        examples: N examples, of any split and in any order.

    Returns:
        `[N]` row in ``knowledge.labels``, or -1 where an example has no label.

    Raises:
        UserError: the knowledge is of another dataset; both hashes are named.
    """
    require_same_dataset(knowledge, dataset)
    known = knowledge.labels.example_id  # sorted
    if len(known) == 0:
        return np.full(len(examples), -1, dtype=np.int64)
    row = np.searchsorted(known, examples.example_id)
    row = np.minimum(row, len(known) - 1)
    return np.where(known[row] == examples.example_id, row, -1).astype(np.int64)


def require_same_dataset(knowledge: Knowledge, dataset: Dataset) -> None:
    """Check that ``knowledge`` was made of ``dataset``.

    Raises:
        UserError: it was not; both hashes are named.
    """
    made_of = knowledge.manifest.dataset_hash
    if made_of != dataset.content_hash:
        raise UserError(
            f"{knowledge.path}: knowledge of another dataset (content hash {made_of}, this one has "
            f"{dataset.content_hash}); use the dataset it was made of, or teach this one"
        )

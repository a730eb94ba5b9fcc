"""What tests of several packages share: a small dataset, and the end of a process within an epoch."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.training import checkpoint, loop

ITEMS = 40


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("small")
    generator = numpy_generator(0, "small")
    rows = [
        {"user_id": user, "item_id": int(item), "timestamp": 1000 * step + user}
        for user in range(50)
        for step, item in enumerate(generator.integers(ITEMS, size=8))
    ]
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": range(ITEMS), "title": [f"thing {n}" for n in range(ITEMS)]}).write_csv(
        folder / "items.csv"
    )
    log = read_log(folder / "log.csv", folder / "items.csv")
    return write_dataset(log, PaperSplit(history=4), folder / "dataset", name="small")


@pytest.fixture
def die_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a training write every step, and end by KeyboardInterrupt after these of the parts that it wrote in all."""

    def arm(*deaths: int) -> None:
        saved, written = checkpoint.save_halfway, 0

        def dying(*state: Any, **place: Any) -> None:
            nonlocal written
            saved(*state, **place)
            written += 1
            if written in deaths:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "SECONDS_KEPT", -1.0)
        monkeypatch.setattr(loop, "save_halfway", dying)

    return arm

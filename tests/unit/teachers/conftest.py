"""A language model of a few thousand weights and a log of a few users: real code, no waiting."""

from pathlib import Path

import polars as pl
import pytest

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.teachers.prompts import INSTRUCTION, RESPONSE
from tiny_llm import write_tiny_llm

WORDS = ("red", "blue", "small", "large", "robot", "puzzle", "train", "doll")


@pytest.fixture(scope="session")
def titles() -> list[str]:
    pairs = [f"{first} {second}" for first in WORDS[:4] for second in WORDS[4:]]
    return [*pairs, "red robot"]  # one duplicate


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> Path:
    return write_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", [*titles, INSTRUCTION, RESPONSE])


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> Dataset:
    folder = tmp_path_factory.mktemp("log")
    generator = numpy_generator(0, "log")
    rows = [
        {"user_id": user, "item_id": int(item), "timestamp": 1000 * step + user}
        for user in range(60)
        for step, item in enumerate(generator.integers(len(titles), size=5))
    ]
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": range(len(titles)), "title": titles}).write_csv(folder / "items.csv")
    log = read_log(folder / "log.csv", folder / "items.csv")
    return write_dataset(log, PaperSplit(), folder / "dataset", name="tiny")

"""What the paper reports, read from the transcription in `published.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

DATASETS = ("Games", "MovieLens", "Toys")
SAME_CATALOGUE = 0.05
"""Relative difference in the number of items."""


@cache
def published() -> dict[str, Any]:
    """Return the transcription."""
    text = files("dllm2rec.reporting.paper").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def dataset_of(name: str, num_items: int) -> str | None:
    """Return the paper's name of a dataset that is called ``name`` here, or None.

    Its catalogue has to be that of the paper's, give or take 5%: another selection of the same log, or another of the
    MovieLens logs, has figures that stand beside none of the paper's.
    """
    by_part = {"game": "Games", "toy": "Toys", "movielens": "MovieLens", "ml": "MovieLens"}
    found = (known for part, known in by_part.items() if part in name.lower())
    theirs = published()["datasets"]
    return next((known for known in found if abs(num_items / theirs[known][1] - 1) <= SAME_CATALOGUE), None)


def result(student: str, method: str, dataset: str | None) -> tuple[float, float] | None:
    """Return HR@20 and NDCG@20 of table 5, or None where the paper has none.

    Args:
        student: `GRU4Rec`, `SASRec`, `DROS` or `teacher`.
        method: as table 5 writes it; `none` for a plain student.
        dataset: one of `DATASETS`, or None.
    """
    row = published()["results"].get(student, {}).get(method)
    if row is None or dataset is None:
        return None
    hit_rate, ndcg = row[DATASETS.index(dataset)]
    return float(hit_rate), float(ndcg)


def on(name: str, dataset: str | None) -> float | None:
    """Return the figure of a dataset in one of the small tables, such as `wins`."""
    value = published()[name].get(dataset)
    return None if value is None else float(value)

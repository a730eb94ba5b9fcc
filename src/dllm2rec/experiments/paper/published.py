"""What the paper reports, read from the transcription in `published.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

DATASETS = ("Games", "MovieLens", "Toys")


@cache
def published() -> dict[str, Any]:
    """Return the transcription."""
    text = files("dllm2rec.experiments.paper").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def dataset_of(name: str) -> str | None:
    """Return the paper's name of a dataset that is called ``name`` here, or None."""
    lowered = name.lower()
    by_part = {"game": "Games", "toy": "Toys", "movielens": "MovieLens", "ml-": "MovieLens"}
    return next((found for part, found in by_part.items() if part in lowered), None)


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

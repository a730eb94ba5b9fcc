"""Verb `prepare`: a log becomes a dataset directory."""

from pathlib import Path

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_file
from dllm2rec.data import Dataset, ml_100k, read_log
from dllm2rec.data import prepare as split_and_write
from dllm2rec.settings.dataset import DatasetSettings


def prepare(settings: DatasetSettings, *, out: Path) -> Dataset:
    """Read, check, split and write a log.

    Args:
        settings: which log, and how it is cut.
        out: the dataset directory; an equal dataset that is there already is left as it is.

    Raises:
        UserError: the log is wrong, a part of the split is empty, or something else is at ``out``.
    """
    interactions, items = log_files(settings)
    log = read_log(
        interactions,
        items,
        columns=settings.columns,
        duplicates=settings.duplicates,
        incomplete=settings.incomplete,
    )
    return split_and_write(log, settings.split, out, name=dataset_name(settings))


def log_files(settings: DatasetSettings) -> tuple[Path, Path]:
    """Return the interactions and the items of the log."""
    if settings.interactions is not None and settings.items is not None:
        return settings.interactions, settings.items
    return ml_100k()


def dataset_name(settings: DatasetSettings) -> str:
    """Return the name for tables and reports."""
    if settings.name or settings.source:
        return settings.name or settings.source or ""
    interactions, _ = log_files(settings)
    stem = Path(interactions.name.removesuffix(".gz")).stem
    return interactions.resolve().parent.name if stem == "interactions" else stem


def log_hashes(settings: DatasetSettings) -> list[str]:
    """Return the hashes of the two files, so that a changed log is noticed.

    Raises:
        UserError: a file is missing.
    """
    for path in log_files(settings):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    return [hash_file(path) for path in log_files(settings)]

"""Beside RecTools' SASRec: targets a second in training, and milliseconds to recommend to one user.

Both train on the same sequences with a softmax over the catalogue, 64 values an item, two blocks, one head, the newest
ten items. RecTools reads a sequence at once and has a target at each of its last ten positions; we read a window for
each target. A target is a target: an epoch's targets are divided by its seconds.

RecTools is no dependency of this project and wants an older numpy, so this runs in an environment of its own:

    uv venv peers
    uv pip install --python peers/bin/python 'rectools[torch]==0.19.0' onnx onnxruntime polars pydantic rich scipy \
        safetensors typer
    PYTHONPATH=src peers/bin/python benchmarks/peers.py --interactions interactions.parquet --items items.parquet
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset as TheirDataset
from rectools.models import SASRecModel

from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.settings.config import TrainSettings
from dllm2rec.workflow.building import load_student
from dllm2rec.workflow.training import train
from random_bundle import write_bundle

HISTORY, SIZE, K = 10, 64, 20


def their_trainer() -> Trainer:
    return Trainer(
        max_epochs=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


def their_data(dataset: Dataset) -> tuple[TheirDataset, int]:
    """The training sequences as RecTools reads them, and the targets of an epoch."""
    sequences = dataset.training_sequences("before-cut")
    length = np.diff(sequences.offsets)
    user = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(user)) - np.repeat(sequences.offsets[:-1], length)
    frame = pd.DataFrame(
        {
            Columns.User: user,
            Columns.Item: sequences.items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(place, unit="D"),
        }
    )
    targets = int(np.minimum(np.maximum(length - 1, 0), HISTORY).sum())
    return TheirDataset.construct(frame), targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        log = read_log(arguments.interactions, arguments.items)
        dataset = write_dataset(log, PaperSplit(history=HISTORY), work / "dataset", name="peers")
        data, targets = their_data(dataset)
        ratios = []
        for number in range(arguments.rounds):
            model = SASRecModel(
                n_blocks=2,
                n_heads=1,
                n_factors=SIZE,
                session_max_len=HISTORY,
                loss="softmax",
                batch_size=512,
                epochs=1,
                get_trainer_func=their_trainer,
            )
            start = time.perf_counter()
            model.fit(data)
            theirs_speed = targets / (time.perf_counter() - start)
            settings = {
                "protocol": "strong",
                "student": {"kind": "transformer", "dim": SIZE, "blocks": 2, "inner": 1},
                "training": {"epochs": 1},
            }
            run = train(dataset, TrainSettings.model_validate(settings), out=work / f"run-{number}")
            speed = run.finished().fit.examples_per_second
            ratios.append(speed / theirs_speed)
            print(
                f"training: ours {speed:,.0f} targets/s, RecTools {theirs_speed:,.0f}, ratio {ratios[-1]:.2f}",
                flush=True,
            )
        print(f"training: ratio {np.median(ratios):.2f} (median of {len(ratios)})")
        recommender = write_bundle(load_student(run, dataset), work / "bundle")
        sequences = dataset.training_sequences("before-cut")
        known = np.flatnonzero(np.diff(sequences.offsets) > 1)  # RecTools drops users of one event
        histories = [sequences[user].tolist() for user in known.tolist()]

        def ours(rows: slice) -> object:
            return recommender.recommend(histories[rows], k=K)

        def theirs(rows: slice) -> object:
            return model.recommend(users=known[rows], dataset=data, k=K, filter_viewed=False)

        first, second = (
            np.median([_seconds(call, slice(one, one + 1)) for one in range(200)]) for call in (ours, theirs)
        )
        print(f"one user: ours {1000 * first:.2f} ms, RecTools {1000 * second:.1f} ms, ratio {second / first:.0f}")
        first, second = (_seconds(call, slice(None)) for call in (ours, theirs))
        print(f"{len(known):,} users: ours {first:.1f} s, RecTools {second:.1f} s, ratio {second / first:.1f}")


def _seconds(call: Callable[[slice], object], rows: slice) -> float:
    start = time.perf_counter()
    call(rows)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""What keeps a student fresh as time rolls on: nothing, new items alone, an update, or training anew.

A student is trained on the first 80% of the events. Then four slices of 5% each come in. On every slice, before any
of it is learned, four students, and counting, are asked for each event (the history is all that the user did before,
the catalogue all items that were sold until the end of the slice):

- nothing: the first student; items that came later can't be recommended
- add-items: the first student, later items by their text alone
- update: updated after each earlier slice (`dllm2rec update`), later items by their text alone
- retrain: trained anew after each earlier slice, on the same events as the update
- counting: item-kNN + text neighbours, following demand, counted anew when `retrain` is trained, from the same events

Resumable: everything that is finished in --out is kept.

    python benchmarks/rolling_time.py --interactions interactions.parquet --items items.parquet --out runs/rolling
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dllm2rec.core.files import read_json, write_json
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, Examples, GlobalTimeSplit, read_log, write_dataset
from dllm2rec.evaluation.demand import adjusted
from dllm2rec.evaluation.metrics import hit_rate, ndcg
from dllm2rec.evaluation.ranks import ScoreFunction, rank_targets
from dllm2rec.evaluation.references import follow_demand, score_with_reference, with_text_weight
from dllm2rec.evaluation.significance import paired_permutation_test
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import TrainSettings
from dllm2rec.settings.teacher import ReferenceTeacher
from dllm2rec.students.base import Student
from dllm2rec.teachers.references import Blend, BlendSettings, fit_reference
from dllm2rec.workflow.runs import Run
from dllm2rec.workflow.teaching import teach
from dllm2rec.workflow.training import train
from dllm2rec.workflow.updating import grown, update

FIRST, SLICES = 0.8, 4
ARMS = ("nothing", "add-items", "update", "retrain", "counting")
PAIRS = (("add-items", "nothing"), ("update", "add-items"), ("retrain", "update"), ("retrain", "counting"))


def cut(interactions: Path, items: Path, out: Path) -> None:
    """Write the log of each period: the first 80%, then the slices; and the items that had been sold by its end."""
    if (out / "items-4.parquet").exists():
        return
    log = read_log(interactions, items)
    ids, titles = log.items["item_id"], log.items["title"]
    events = log.interactions.sort("time", maintain_order=True)
    size = (1 - FIRST) / SLICES
    times = events["time"].to_numpy()
    bounds = [int(events.height * (FIRST + size * number)) for number in range(SLICES)]
    bounds = [0, *(int(np.searchsorted(times, times[bound])) for bound in bounds), events.height]  # no time is cut
    for number, (start, end) in enumerate(pairwise(bounds)):
        part = events[start:end]
        part.select(user_id="user", item_id=ids.gather(part["item"]), timestamp="time").write_parquet(
            out / f"log-{number}.parquet"
        )
        sold = events[:end]["item"].unique().sort()
        pl.DataFrame({"item_id": ids.gather(sold), "title": titles.gather(sold)}).write_parquet(
            out / f"items-{number}.parquet"
        )


def timed(file: Path, work: Callable[[], object]) -> float:
    """Do the work, if it is not done; return the seconds that it took when it was."""
    if not file.exists():
        start = time.perf_counter()
        work()
        write_json(file, {"seconds": time.perf_counter() - start})
    return float(read_json(file)["seconds"])


def newest(dataset: Dataset, before: Dataset) -> Examples:
    """The examples that an extension added."""
    found = [dataset.examples(split) for split in ("train", "validation", "test")]
    known = np.concatenate([before.examples(split).example_id for split in ("train", "validation", "test")])
    new = [part.take(~np.isin(part.example_id, known)) for part in found]
    return Examples.join(new)


def only_known(student: Student, known: int) -> Callable[[Tensor], Tensor]:
    """Score nothing but the first items."""

    def masked(history: Tensor) -> Tensor:
        scores: Tensor = student(torch.where(history >= known, student.num_items, history))
        scores[:, known:] = -1e9
        return scores

    return masked


def counting(before: Dataset, known: Knowledge, dataset: Dataset, knowledge: Knowledge) -> ScoreFunction:
    """Count what came before a slice, choose weights there, and score the catalogue that includes the slice."""
    vectors = known.item_vectors
    settings = with_text_weight(BlendSettings(), before, item_vectors=vectors, train_on="before-cut")
    sequences = before.training_sequences("before-cut")
    chosen = follow_demand(
        fit_reference(settings, before, item_vectors=vectors, sequences=sequences), before, "before-cut"
    )
    assert isinstance(chosen.reference, Blend)
    settings = settings.model_copy(update={"text_weight": chosen.reference.text_weight})
    reference = fit_reference(settings, dataset, item_vectors=knowledge.item_vectors, sequences=sequences)
    more = dataset.num_items - before.num_items
    shift = np.pad(chosen.shift, (0, more), constant_values=np.float32(chosen.weights.new))
    weights = chosen.weights
    score = score_with_reference(reference)
    return adjusted(score, reads=chosen.reads, shift=shift, again=weights.again, ever=weights.ever)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    cut(arguments.interactions, arguments.items, out)
    log = read_log(out / "log-0.parquet", out / "items-0.parquet")
    base = write_dataset(log, GlobalTimeSplit(), out / "dataset", name=arguments.interactions.parent.name)
    teacher = ReferenceTeacher(reference=BlendSettings(), depth=50)
    cell = TrainSettings.model_validate({"protocol": "strong", "method": {"kind": "soft-labels"}})

    def fit(dataset: Dataset, knowledge: Knowledge, where: Path) -> None:
        train(dataset, cell, out=where, seed=arguments.seed, knowledge=knowledge)

    def first() -> None:
        fit(base, teach(base, teacher, out=out / "knowledge"), out / "run")

    seconds = {"first": timed(out / "first.json", first)}
    rows = []
    for number in range(1, SLICES + 1):
        previous = out / "run" if number == 1 else out / f"update-{number - 1}"
        anew = out / "run" if number == 1 else out / f"retrain-{number - 1}"
        target = out / f"update-{number}"

        def go_on(previous: Path = previous, target: Path = target, number: int = number) -> None:
            update(
                Run.load(previous),
                out / f"log-{number}.parquet",
                items=out / f"items-{number}.parquet",
                out=target,
                force=True,
            )

        seconds[f"update {number}"] = timed(out / f"update-{number}.json", go_on)
        dataset, knowledge = Dataset.load(target / "dataset"), Knowledge.load(target / "knowledge")
        before = base if number == 1 else Dataset.load(previous / "dataset")
        known = out / "knowledge" if number == 1 else previous / "knowledge"
        if not (out / f"slice-{number}.json").exists():
            examples = newest(dataset, before)
            unseen = examples.target >= base.num_items
            student = grown(Run.load(out / "run"), dataset, knowledge)
            scores = {
                "nothing": only_known(student, base.num_items),
                "add-items": student,
                "update": grown(Run.load(previous), dataset, knowledge),
                "retrain": grown(Run.load(anew), dataset, knowledge),
                "counting": counting(before, Knowledge.load(known), dataset, knowledge),
            }
            ranks = {arm: rank_targets(scores[arm], examples).rank for arm in ARMS}
            row: dict[str, object] = {"slice": number, "events": len(examples), "new items": float(unseen.mean())}
            for arm, rank in ranks.items():
                row[f"{arm} HR@20"] = float(hit_rate(rank, 20).mean())
                row[f"{arm} NDCG@20"] = float(ndcg(rank, 20).mean())
                row[f"{arm} HR@20 of new items"] = float(hit_rate(rank[unseen], 20).mean())
            for one, other in PAIRS:
                row[f"p {one} - {other}"] = paired_permutation_test(
                    ndcg(ranks[one], 20), ndcg(ranks[other], 20), user=examples.user, generator=numpy_generator(0, one)
                )
            write_json(out / f"slice-{number}.json", row)
        rows.append(read_json(out / f"slice-{number}.json"))
        print(json.dumps(rows[-1], indent=1), flush=True)
        if number < SLICES:
            seconds[f"retrain {number}"] = timed(
                out / f"retrain-{number}.json",
                lambda: fit(dataset, knowledge, out / f"retrain-{number}"),  # noqa: B023
            )
    write_json(out / "rolling.json", {"slices": rows, "seconds": seconds})
    print(json.dumps(seconds, indent=1))


if __name__ == "__main__":
    main()

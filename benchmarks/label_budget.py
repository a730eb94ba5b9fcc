"""What labels are worth: a student, taught by the labels that each rule chooses first, at growing budgets.

Of the labels that knowledge has for training examples, a share is kept that a rule chooses (see
`dllm2rec.teachers.choosing`); the strong student learns from these by soft labels, one of the paper's protocol by
DLLM2Rec. At share 0 it is the same student without labels, which reads the item vectors where there are some; shares 0
and 100 are the same for every rule.

The table is of means over seeds. "Of gain" is how much of what all labels add to NDCG@20 is reached; p is of
NDCG@20 on test, paired by example against share 0, after Holm (see `compare`).

Resumable: a finished cell is a line of cells.jsonl in --out, and its run and its knowledge lie beside it. Started
again, also with more rules, shares or seeds, it trains what is missing.

    dllm2rec teach work/dataset --teacher blend --set depth=50 --out work/blend
    python benchmarks/label_budget.py --dataset work/dataset --knowledge work/blend --out runs/budget

A first look: --set training.epochs=2 --seeds 1 --shares 0 10 100 --rules random disagreement
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dllm2rec import Dataset, Knowledge, Run, TrainSettings, compare, evaluate, train
from dllm2rec.core.files import atomic_path, hash_json
from dllm2rec.data import Split, TrainOn
from dllm2rec.evaluation.metrics import METRICS
from dllm2rec.knowledge import KnowledgeWriter
from dllm2rec.knowledge.align import align
from dllm2rec.settings.parsing import override, validate
from dllm2rec.settings.protocol import Protocol
from dllm2rec.teachers.choosing import Rule, order

SPLITS: tuple[Split, ...] = ("validation", "test")
RULES: tuple[Rule, ...] = ("random", "uncertain", "disagreement", "diverse")


@dataclass(frozen=True)
class Arm:
    """What is trained once a seed: a student, and the share of the labels, in percent, that a rule chooses."""

    student: str
    rule: Rule | None
    share: float

    @property
    def label(self) -> str:
        if self.rule is None:
            return "all labels" if self.share else "no labels"
        return f"{self.rule} {self.share:g}%"


def arms(students: Sequence[str], rules: Sequence[Rule], shares: Iterable[float]) -> list[Arm]:
    """All of them, from few labels to many."""
    found = []
    for student in students:
        for share in sorted(set(shares)):
            found += [Arm(student, rule, share) for rule in (rules if 0 < share < 100 else [None])]
    return found


class Budget:
    """Trains and measures arms on one dataset with one teacher.

    Args:
        dataset: the log.
        knowledge: the labels.
        out: where everything goes.
        protocol: of the student; decides the method, too.
        settings: ``name=value`` of the cell, over the protocol's.
        choice_seed: of the choice of examples.
    """

    def __init__(
        self,
        dataset: Dataset,
        knowledge: Knowledge,
        out: Path,
        *,
        protocol: Protocol,
        settings: Sequence[str],
        choice_seed: int,
    ) -> None:
        self.dataset, self.knowledge, self.out = dataset, knowledge, out
        self.protocol, self.settings, self.choice_seed = protocol, settings, choice_seed
        self.train_on: TrainOn = "before-cut" if protocol == "strong" else "examples"
        training = dataset.training_examples(self.train_on)
        self.pool = training.take(align(knowledge, dataset, training) >= 0)
        described = [dataset.content_hash, knowledge.content_hash, protocol, list(settings), choice_seed]
        self.name = hash_json(described)[:8]
        self.order = cache(self._order)

    def _order(self, rule: Rule) -> NDArray[np.int64]:
        return order(
            rule,
            self.dataset,
            self.pool,
            seed=self.choice_seed,
            train_on=self.train_on,
            item_vectors=self.knowledge.item_vectors,
        )

    def labels(self, arm: Arm) -> int:
        return max(round(arm.share / 100 * len(self.pool)), int(arm.share > 0))

    def taught_by(self, arm: Arm) -> Knowledge:
        """The labels that an arm learns from, as knowledge of their own."""
        if arm.rule is None:
            return self.knowledge
        path = self.out / "knowledge" / f"{arm.rule}-{arm.share:g}-{self.name}"
        chosen = self.pool.take(self.order(arm.rule)[: self.labels(arm)])
        writer = KnowledgeWriter(path, self.knowledge.manifest)
        if self.knowledge.item_vectors is not None and not writer.has_item_vectors():
            writer.write_item_vectors(self.knowledge.item_vectors)
        missing = chosen.take(~np.isin(chosen.example_id, writer.labelled_ids()))
        writer.append(self.knowledge.labels.take(align(self.knowledge, self.dataset, missing)))
        return Knowledge.load(path)

    def run(self, arm: Arm, seed: int) -> Path:
        return self.out / "runs" / f"{arm.student}-{arm.label.replace(' ', '-').rstrip('%')}-{seed}-{self.name}"

    def method(self, arm: Arm) -> dict[str, object]:
        """What the student of an arm learns by."""
        has_vectors = self.knowledge.item_vectors is not None
        if self.protocol == "paper":
            return {"kind": "dllm2rec", "embedding": has_vectors}
        if arm.share == 0:
            return {"kind": "vectors" if has_vectors else "none"}
        return {"kind": "soft-labels", "embedding": has_vectors}

    def measure(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and evaluate."""
        described = {"protocol": self.protocol, "student": {"kind": arm.student}, "method": self.method(arm)}
        without = ["method.lambda_d=0"] if self.protocol == "paper" and arm.share == 0 else []
        run = train(
            self.dataset,
            validate(TrainSettings, override(described, [*self.settings, *without])),
            out=self.run(arm, seed),
            seed=seed,
            knowledge=None if self.method(arm)["kind"] == "none" else self.taught_by(arm),
            student=arm.student,
            method=arm.label,
        )
        values = {split: evaluate(run, split=split, dataset=self.dataset).metrics for split in SPLITS}
        return {
            **vars(arm),
            "seed": seed,
            "labels": self.labels(arm),
            **{split: {name: values[split][name] for name in METRICS} for split in SPLITS},
        }


def read_cells(file: Path) -> dict[str, dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {cell["run"]: cell for cell in map(json.loads, lines)}


def write_cells(file: Path, cells: Mapping[str, dict[str, Any]]) -> None:
    with atomic_path(file) as target:
        target.write_text("".join(json.dumps(cell) + "\n" for cell in cells.values()), encoding="utf-8")


def p_values(budget: Budget, some: Sequence[Arm], seeds: Sequence[int]) -> dict[Arm, float]:
    """Test each arm of one student against the one without labels; nothing where that is not among them."""
    if some[0].share > 0 or len(some) == 1:
        return {}
    runs = [Run.load(budget.run(arm, seed)) for arm in some for seed in seeds]
    rows = compare(runs, split="test").tables[0].rows
    found = {row.method: row.versus.p_value for row in rows if row.versus is not None}
    return {arm: found[arm.label] for arm in some if arm.label in found}


def table(means: Mapping[Arm, dict[Split, dict[str, float]]], labels: Mapping[Arm, int], p: Mapping[Arm, float]) -> str:
    """Write arms as a Markdown table."""
    lines = [
        "| student | labels | count | validation HR@20 | NDCG@20 | of gain | test HR@20 | NDCG@20 | of gain | p |",
        "| --- | --- | ---: |" + " ---: |" * 7,
    ]
    for arm, values in means.items():
        cells = [arm.student, arm.label, f"{labels[arm]:,}"]
        for split in SPLITS:
            cells += [f"{values[split][name]:.4f}" for name in METRICS]
            none, full = means.get(Arm(arm.student, None, 0.0)), means.get(Arm(arm.student, None, 100.0))
            cells.append(of_gain(values[split], none[split], full[split]) if none and full else "")
        cells.append(f"{p[arm]:.3f}" if arm in p else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def of_gain(values: Mapping[str, float], none: Mapping[str, float], full: Mapping[str, float]) -> str:
    value, low, high = (one["NDCG@20"] for one in (values, none, full))
    return f"{(value - low) / (high - low):.0%}" if high != low else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--knowledge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 1, 3, 10, 30, 100], metavar="PERCENT")
    parser.add_argument("--rules", nargs="+", choices=get_args(Rule), default=RULES)
    parser.add_argument("--protocol", choices=get_args(Protocol), default="strong")
    parser.add_argument("--students", nargs="+", help="transformer; in the paper's protocol sasrec")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--choice-seed", type=int, default=0)
    arguments = parser.parse_args()
    if not all(0 <= share <= 100 for share in arguments.shares):
        parser.error("--shares are percent, from 0 to 100")
    budget = Budget(
        Dataset.load(arguments.dataset),
        Knowledge.load(arguments.knowledge),
        arguments.out,
        protocol=arguments.protocol,
        settings=arguments.settings,
        choice_seed=arguments.choice_seed,
    )
    students = arguments.students or ["transformer" if arguments.protocol == "strong" else "sasrec"]
    everything = arms(students, arguments.rules, arguments.shares)
    file = arguments.out / "cells.jsonl"
    cells = read_cells(file)
    for seed in arguments.seeds:  # a whole table after each seed
        for arm in everything:
            run = budget.run(arm, seed).name
            if run not in cells:
                cells[run] = {"run": run, **budget.measure(arm, seed)}
                write_cells(file, cells)
                print(json.dumps(cells[run]), flush=True)
    means = {
        arm: {
            split: {
                name: float(np.mean([cells[budget.run(arm, seed).name][split][name] for seed in arguments.seeds]))
                for name in METRICS
            }
            for split in SPLITS
        }
        for arm in everything
    }
    p: dict[Arm, float] = {}
    for student in students:
        p |= p_values(budget, [arm for arm in everything if arm.student == student], arguments.seeds)
    print(table(means, {arm: budget.labels(arm) for arm in everything}, p))


if __name__ == "__main__":
    main()

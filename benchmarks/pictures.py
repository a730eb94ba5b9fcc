"""The pictures of the documentation, as SVG that reads on light and dark pages.

How sure a teacher is and how often it is right; HR@20 by how often training saw the target, of runs and of the best
reference that needs no training; what labels are worth, by how many and which (the output of label_budget.py); language
models by their size, from NDCG@20 of each as a teacher and of the student that it taught.

    python benchmarks/pictures.py calibration --dataset DATASET --knowledge KNOWLEDGE --out docs/calibration.svg
    python benchmarks/pictures.py slices --of TOYS BLEND RUN RUN --of GAMES BLEND RUN --out docs/slices.svg
    python benchmarks/pictures.py budget --cells runs/budget/cells.jsonl --out docs/budget.svg
    python benchmarks/pictures.py scaling --of SmolLM2 135 .0140 .0160 --of "Gemma 3" 270 .0180 .0157 \
        --of Qwen2.5-Coder 494 .0077 .0118 --plain .0141 --out docs/scaling.svg
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib import pyplot as plt

from dllm2rec import Dataset, Knowledge, Run, evaluate
from dllm2rec.comparison.doctor import examine
from dllm2rec.core.files import atomic_path
from dllm2rec.evaluation.references import reference_ranks
from dllm2rec.evaluation.slices import popularity_slices
from dllm2rec.teachers.references import BlendSettings

BLUE, GRAY = "#3b82f6", "#8a94a6"
RULES = {"random": GRAY, "uncertain": "#d97706", "disagreement": BLUE, "diverse": "#0d9488"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dllm2rec",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GRAY),
}


def save(figure: Any, out: Path) -> None:
    figure.tight_layout()
    with atomic_path(out) as target:
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def calibration(dataset: Path, knowledge: Path, out: Path) -> None:
    """Draw what a teacher expects of what it lists against what came, on both axes logarithmic."""
    found = examine(Knowledge.load(knowledge), Dataset.load(dataset), test=True).calibration
    if found is None:
        raise SystemExit(f"{knowledge}: too few examples of validation and test are labelled")
    expected, came = np.array(found.bins).T
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    ends = [min(expected.min(), came[came > 0].min()) / 1.5, max(expected.max(), came.max()) * 1.5]
    axes.plot(ends, ends, color=GRAY, linewidth=1, linestyle="--", label="as sure as right")
    axes.plot(expected, came, color=BLUE, marker="o", label=f"{found.examples:,} test examples")
    axes.set(xscale="log", yscale="log", xlabel="probability of a listed item", ylabel="share that came next")
    axes.legend(frameon=False)
    save(figure, out)


def slices(groups: Sequence[Sequence[Path]], out: Path) -> None:
    """Draw a panel a dataset: unseen targets, then those that training saw seldom to often."""
    figure, panels = plt.subplots(1, len(groups), figsize=(4.6 * len(groups), 3.2), squeeze=False)
    for axes, (data, vectors, *paths) in zip(panels[0], groups, strict=True):
        dataset = Dataset.load(data)
        examples = dataset.examples("test")
        reference = reference_ranks(
            BlendSettings(),
            dataset,
            examples,
            train_on="before-cut",
            item_vectors=Knowledge.load(vectors).item_vectors,
            follows="demand",
        )
        hits = []
        for path in paths:
            run = Run.load(path)
            evaluate(run, split="test", dataset=dataset)
            hits.append(run.read_ranks("test").rank <= 20)
        parts = popularity_slices(examples, dataset.train_counts("before-cut"))
        bars = (
            ("counting, following demand", GRAY, (reference.rank <= 20).astype(float)),
            (f"student, {len(paths)} seed{'s' * (len(paths) > 1)}", BLUE, np.mean(hits, axis=0)),
        )
        for place, (name, colour, hit) in enumerate(bars):
            heights = [hit[part.rows].mean() for part in parts]
            drawn = axes.bar(np.arange(len(parts)) + 0.4 * place - 0.2, heights, 0.36, color=colour, label=name)
            axes.bar_label(drawn, [f"{height:.3f}".removeprefix("0") for height in heights], fontsize=8, color=GRAY)
        names = [part.name.removeprefix("seen ").replace(" in training", "").replace(" times", "") for part in parts]
        axes.set_xticks(range(len(parts)), names)
        axes.set(title=dataset.manifest.name, xlabel="times in training", ylabel="HR@20")
        axes.title.set_fontsize(11)
        axes.legend(frameon=False, fontsize=8)
    save(figure, out)


def budget(cells: Path, out: Path) -> None:
    """Draw NDCG@20 against the share of the labels, a line a rule: means over seeds, with their least and greatest."""
    found = pl.DataFrame([json.loads(line) for line in cells.read_text(encoding="utf-8").splitlines()])
    shares = sorted(found["share"].unique())
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 3.4))
    for axes, split in zip(panels, ("validation", "test"), strict=True):
        score = pl.col(split).struct.field("NDCG@20")
        for place, (rule, colour) in enumerate(RULES.items()):
            of_rule = found.filter(pl.col("rule").is_null() | (pl.col("rule") == rule))
            drawn = of_rule.group_by("share").agg(mean=score.mean(), low=score.min(), high=score.max()).sort("share")
            mean = drawn["mean"].to_numpy()
            spread = np.abs(drawn.select("low", "high").to_numpy().T - mean)
            at = [shares.index(share) + 0.06 * place - 0.09 for share in drawn["share"]]
            axes.errorbar(at, mean, spread, color=colour, marker="o", markersize=4, linewidth=1.4, label=rule)
        axes.set_xticks(range(len(shares)), [f"{share:g}%" for share in shares])
        axes.set(title=split, xlabel="share of the labels", ylabel="NDCG@20")
        axes.title.set_fontsize(11)
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, out)


def scaling(models: Sequence[tuple[str, str, str, str]], plain: float, out: Path) -> None:
    """Draw NDCG@20 of teachers, and of the students that they taught, against millions of parameters."""
    names, sizes = [name for name, *_ in models], [float(size) for _, size, *_ in models]
    figure, axes = plt.subplots(figsize=(4.6, 3.4))
    for place, label, colour in ((2, "teacher", GRAY), (3, "student taught by it", BLUE)):
        axes.plot(sizes, [float(model[place]) for model in models], color=colour, marker="o", label=label)
    axes.axhline(plain, color=BLUE, linewidth=1, linestyle="--", label="student without a teacher")
    axes.set(xscale="log", ylabel="NDCG@20", ylim=(0, None))
    axes.minorticks_off()
    axes.set_xticks(sizes, [f"{name}\n{size:g}M" for name, size in zip(names, sizes, strict=True)])
    axes.legend(frameon=False, fontsize=8)
    save(figure, out)


def main() -> None:
    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("calibration")
    first.add_argument("--dataset", type=Path, required=True)
    first.add_argument("--knowledge", type=Path, required=True)
    second = verbs.add_parser("slices")
    second.add_argument("--of", type=Path, nargs="+", action="append", required=True, metavar="DATASET VECTORS RUN")
    third = verbs.add_parser("budget")
    third.add_argument("--cells", type=Path, required=True)
    fourth = verbs.add_parser("scaling")
    fourth.add_argument(
        "--of", nargs=4, action="append", required=True, metavar=("NAME", "MILLIONS", "NDCG", "STUDENT")
    )
    fourth.add_argument("--plain", type=float, required=True)
    for verb in (first, second, third, fourth):
        verb.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    match arguments.verb:
        case "calibration":
            calibration(arguments.dataset, arguments.knowledge, arguments.out)
        case "slices":
            slices(arguments.of, arguments.out)
        case "budget":
            budget(arguments.cells, arguments.out)
        case "scaling":
            scaling(arguments.of, arguments.plain, arguments.out)


if __name__ == "__main__":
    main()

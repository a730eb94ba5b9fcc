"""`dllm2rec evaluate`: metrics of a run over the whole catalogue."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dllm2rec.cli.options import HeldOut, Json, MaskHistory, MovedDataset, show, there, words_to_stderr


def evaluate(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", callback=there, help="Directory made by `dllm2rec train`.")],
    split: HeldOut = "test",
    dataset: MovedDataset = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(metavar="KNOWLEDGE", callback=there, help="Where the knowledge is now, if it has moved."),
    ] = None,
    mask_history: MaskHistory = False,
    json: Json = False,
) -> None:
    """Rank the next item among all items, for every example of a split.

    Example: dllm2rec evaluate work/run --split test --json
    """
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.workflow.evaluating import evaluate as rank
    from dllm2rec.workflow.runs import Run

    opened = Run.load(run)
    with words_to_stderr():
        done = rank(
            opened,
            split=split,
            mask_history=mask_history,
            dataset=None if dataset is None else Dataset.load(dataset),
            knowledge=None if knowledge is None else Knowledge.load(knowledge),
        )
    masked = ", items of the history left out" if mask_history else ""
    table = Table(title=f"{opened.config.label}, seed {opened.config.seed}: {done.examples:,} {split} examples{masked}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in done.metrics.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("s / 1,000 users", f"{done.seconds_per_1000:.3g}")
    show(
        {"run": str(run), "split": split, **done.model_dump(mode="json")},
        table,
        as_json=json,
    )

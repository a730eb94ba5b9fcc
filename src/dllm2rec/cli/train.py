"""`dllm2rec train`: a student learns, plain or from a teacher."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dllm2rec.cli.options import DatasetPath, Json, Out, Set, show, words_to_stderr


def train(
    *,
    dataset: DatasetPath,
    out: Out,
    student: Annotated[Literal["gru4rec", "sasrec", "caser"], typer.Option(help="Which student.")] = "sasrec",
    loss: Annotated[Literal["bce", "softmax", "dros"], typer.Option(help="Which loss.")] = "bce",
    method: Annotated[
        str | None,
        typer.Option(
            metavar="[none|dllm2rec|hint|htd|rd|cd|rrd|dcd|unkd]",
            help="How it is taught; dllm2rec if --knowledge is given.",
        ),
    ] = None,
    variant: Annotated[Literal["paper", "released"] | None, typer.Option(help="Of dllm2rec.")] = None,
    knowledge: Annotated[Path | None, typer.Option(metavar="KNOWLEDGE", help="What the teacher knows.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and of training.")] = 1,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Train one student; validation chooses the epoch, the test examples are never looked at.

    Example: dllm2rec train work/dataset --student sasrec --knowledge work/knowledge --method dllm2rec --out work/run
    """
    from dllm2rec.data import Dataset
    from dllm2rec.experiments.config import CellSettings
    from dllm2rec.experiments.running import train as run
    from dllm2rec.experiments.settings import override, validate
    from dllm2rec.experiments.verdict import figure
    from dllm2rec.knowledge.store import Knowledge

    kind = method or ("dllm2rec" if knowledge is not None else "none")
    values: dict[str, Any] = {"student": {"kind": student}, "loss": {"kind": loss}, "method": {"kind": kind}}
    if variant is not None:
        values["method"]["variant"] = variant
    chosen = validate(CellSettings, override(values, settings or []))
    with words_to_stderr():
        known = None if knowledge is None else Knowledge.load(knowledge)
        done = run(Dataset.load(dataset), chosen, out=out, seed=seed, knowledge=known)
    fit = done.finished().fit
    config = done.config
    show(
        {
            "run": str(out),
            "hash": config.hash,
            "student": config.student,
            "method": config.method,
            "seed": config.seed,
            **fit.model_dump(mode="json"),
        },
        f"{config.label}, seed {config.seed}: best of {fit.epochs_run} epochs is {fit.best_epoch}, validation "
        f"HR@20 {figure(fit.validation['HR@20'])}, NDCG@20 {figure(fit.validation['NDCG@20'])} "
        f"({fit.seconds:.0f} s, {fit.examples_per_second:,.0f} examples/s)",
        f"run in {out}; on the test examples: dllm2rec evaluate {out}",
        as_json=json,
    )

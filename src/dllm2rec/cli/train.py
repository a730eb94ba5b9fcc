"""`dllm2rec train`: a student learns, plain or from a teacher."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dllm2rec.cli.options import DatasetPath, Json, Out, Set, show, there, words_to_stderr
from dllm2rec.core.errors import UserError
from dllm2rec.settings.protocol import DEFAULT

if TYPE_CHECKING:
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.settings.config import TrainSettings

LARGE = 20_000_000_000
"""Events times items from which on training by a full softmax is told to take long."""
FEW = 0.1
"""Share of the training examples below which it is told how many have a label."""


def train(
    *,
    dataset: DatasetPath,
    out: Out,
    protocol: Annotated[
        Literal["strong", "paper"],
        typer.Option(help="Defaults for settings that you do not give: our strong recipe, or what the paper did."),
    ] = DEFAULT,
    student: Annotated[
        Literal["transformer", "sasrec", "gru4rec", "caser"] | None,
        typer.Option(help="Model to train. Default: transformer (strong), sasrec (paper)."),
    ] = None,
    loss: Annotated[
        Literal["softmax", "sampled-softmax", "gbce", "bce", "dros"] | None,
        typer.Option(help="Recommendation loss. Default: softmax (strong), bce (paper)."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="[none|vectors|soft-labels|dllm2rec|hint|htd|rd|cd|rrd|dcd|unkd|kar|llm-cf]",
            help="Distillation method. Default without --knowledge: none. With it: soft-labels (strong; vectors, if "
            "the knowledge has no rankings) or dllm2rec (paper).",
        ),
    ] = None,
    variant: Annotated[
        Literal["paper", "released"] | None,
        typer.Option(help="Variant of dllm2rec: the paper's equations or the released code."),
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(metavar="KNOWLEDGE", callback=there, help="Directory made by `dllm2rec teach`.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial weights and of training.")] = 1,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Train one student; validation chooses the epoch, the test examples are never looked at.

    Example: dllm2rec train work/dataset --knowledge work/knowledge --out work/run
    """
    from dllm2rec.core.figures import figure, number_of
    from dllm2rec.core.memory import peak_memory
    from dllm2rec.data import Dataset
    from dllm2rec.evaluation.metrics import HITS, METRIC
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.settings.config import TrainSettings
    from dllm2rec.settings.parsing import override, validate
    from dllm2rec.workflow.runs import RESULT
    from dllm2rec.workflow.training import train as run

    known = None if knowledge is None else Knowledge.load(knowledge)
    values: dict[str, Any] = {"protocol": protocol, "method": {"kind": method or _method(protocol, known)}}
    for name, kind in (("student", student), ("loss", loss)):
        if kind is not None:
            values[name] = {"kind": kind}
    values = override(values, settings or [])
    if variant is not None:
        if (kind := values["method"]["kind"]) != "dllm2rec":
            raise UserError(f"--variant {variant}: it is of method dllm2rec, this is {kind}; leave it out")
        values["method"]["variant"] = variant
    chosen = validate(TrainSettings, values)
    trained_before = (out / RESULT).is_file()
    opened = Dataset.load(dataset)
    if chosen.loss.kind == "softmax" and opened.manifest.num_interactions * opened.num_items > LARGE:
        typer.echo(
            f"{opened.manifest.num_interactions:,} events and {opened.num_items:,} items: a softmax over all items "
            "takes hours; --method vectors (or none) with --loss sampled-softmax takes a part of the time",
            err=True,
        )
    with words_to_stderr():
        done = run(opened, chosen, out=out, seed=seed, knowledge=known)
    fit, peak = done.finished().fit, None if trained_before else peak_memory()
    config = done.config
    show(
        {
            "run": str(out),
            "hash": config.hash,
            "student": config.student,
            "method": config.method,
            "seed": config.seed,
            **fit.model_dump(mode="json"),
            "peak_memory": peak,
        },
        f"{config.label}, seed {config.seed}: best of {number_of(fit.epochs_run, 'epoch')} is {fit.best_epoch}, "
        f"validation HR@20 {figure(fit.validation[HITS])}, NDCG@20 {figure(fit.validation[METRIC])} "
        f"({fit.seconds:.0f} s, {fit.examples_per_second:,.0f} examples/s"
        f"{', before this command' if peak is None else f', {peak / 1e9:.1f} GB at the peak'})",
        *_unsaid(chosen, fit.labelled, opened, known),
        f"run in {out}; on the test examples: dllm2rec evaluate {out}",
        as_json=json,
    )


def _unsaid(cell: "TrainSettings", labelled: int, dataset: "Dataset", knowledge: "Knowledge | None") -> list[str]:
    """Say it where a method that learns from lists had few to learn from, or none."""
    from dllm2rec.distillation.methods import ListMethod

    if knowledge is None or not isinstance(cell.method, ListMethod):
        return []
    if not labelled and cell.method.kind == "dllm2rec":
        return ["no training example has a label of this teacher: its item vectors were distilled, and no rankings"]
    examples = len(dataset.training_examples(cell.train_on))
    if labelled >= FEW * examples:
        return []
    return [f"{labelled:,} of {examples:,} training examples ({labelled / examples:.1%}) have a label of this teacher"]


def _method(protocol: str, knowledge: "Knowledge | None") -> str:
    """Choose how a student is taught where it was not said."""
    if knowledge is None:
        return "none"
    if protocol == "paper":
        return "dllm2rec"
    return "soft-labels" if len(knowledge.labels) else "vectors"

"""`dllm2rec export`: a trained student becomes a bundle that serves without PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from dllm2rec.cli.options import Json, Out, show, words_to_stderr


def export(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory made by `dllm2rec train`.")],
    out: Out,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Where the dataset is now, if it was moved.")
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(metavar="KNOWLEDGE", help="Where the knowledge is now, if it was moved.")
    ] = None,
    json: Json = False,
) -> None:
    """Export a student: folded item vectors, the encoder as ONNX, titles, a card; checked against PyTorch.

    Example: dllm2rec export work/run --out work/bundle
    """
    from dllm2rec.data import Dataset
    from dllm2rec.experiments.exporting import export as write
    from dllm2rec.experiments.runs import Run
    from dllm2rec.knowledge.store import Knowledge

    with words_to_stderr():
        done = write(
            Run.load(run),
            out=out,
            dataset=None if dataset is None else Dataset.load(dataset),
            knowledge=None if knowledge is None else Knowledge.load(knowledge),
        )
    show(
        {"bundle": str(out), "bytes": done.bytes, "checked": done.checked, "different": done.different},
        f"bundle in {out}, {done.bytes / 1e6:.1f} MB; the same top 20 as PyTorch for {done.checked:,} histories",
        f"try it: dllm2rec recommend {out} --history ID,ID",
        as_json=json,
    )

"""`dllm2rec export`: a student becomes a bundle that serves without PyTorch, knowledge the original code's files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dllm2rec.cli.options import Json, Out, show, words_to_stderr
from dllm2rec.core.errors import UserError


def export(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="RUN|KNOWLEDGE", help="Directory made by `dllm2rec train` or by `dllm2rec teach`.")
    ],
    out: Out,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Where the dataset is now, if it was moved.")
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(metavar="KNOWLEDGE", help="Where the knowledge is now, if it was moved.")
    ] = None,
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Of the item vectors on disk; int8 also of the encoder's matrices."),
    ] = "float32",
    max_loss: Annotated[
        float, typer.Option(metavar="SHARE", help="Most NDCG@20 that a smaller precision may lose, or it is refused.")
    ] = 0.01,
    index: Annotated[
        bool, typer.Option("--index", help="Also an approximate index, for catalogues of millions (needs usearch).")
    ] = False,
    json: Json = False,
) -> None:
    """Export a student: folded item vectors, the encoder as ONNX, titles, a card; checked against PyTorch.

    Of a KNOWLEDGE directory (with --dataset) it writes the files that the code of the DLLM2Rec authors reads.
    Example: dllm2rec export work/run --out work/bundle
    """
    from dllm2rec.data import Dataset
    from dllm2rec.experiments.exporting import export as write
    from dllm2rec.experiments.runs import Run
    from dllm2rec.knowledge.legacy import export_legacy
    from dllm2rec.knowledge.schema import MARKER as MANIFEST
    from dllm2rec.knowledge.store import Knowledge

    opened = None if dataset is None else Dataset.load(dataset)
    if (source / MANIFEST).is_file():
        if opened is None:
            raise UserError("exporting knowledge needs its dataset; give --dataset DATASET")
        export_legacy(Knowledge.load(source), opened, out=out)
        files = sorted(file.name for file in out.iterdir())
        show({"files": files}, f"{', '.join(files)} in {out}, as the original code reads them", as_json=json)
        return
    with words_to_stderr():
        done = write(
            Run.load(source),
            out=out,
            dataset=opened,
            knowledge=None if knowledge is None else Knowledge.load(knowledge),
            precision=precision,
            index=index,
            max_loss=max_loss,
        )
    check = done.check
    same = f"the same top 20 as PyTorch for {check.examples:,} histories"
    if check.different:
        same = (
            f"on {check.examples:,} histories {check.overlap:.1%} of PyTorch's top 20 and NDCG@20 {check.ndcg:.4f} "
            f"against {check.pytorch_ndcg:.4f}"
        )
    approximate = [] if done.recall is None else [f"the index finds {done.recall:.1%} of the exact top 20"]
    show(
        {"bundle": str(out), "bytes": done.bytes, "checked": check.examples, **vars(check), "recall": done.recall},
        f"bundle in {out}, {done.bytes / 1e6:.1f} MB; {same}",
        *approximate,
        f"try it: dllm2rec recommend {out} --history ID,ID",
        as_json=json,
    )

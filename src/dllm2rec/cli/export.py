"""`dllm2rec export`: a student, or counting, becomes a bundle that serves without PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dllm2rec.cli.options import Json, MovedDataset, Out, show, there, words_to_stderr
from dllm2rec.core.errors import UserError

if TYPE_CHECKING:
    from dllm2rec.bundling.bundles import Check


def export(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|DATASET|KNOWLEDGE",
            callback=there,
            help="Directory made by `dllm2rec train`, `prepare` or `teach`.",
        ),
    ],
    out: Out,
    dataset: MovedDataset = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(
            metavar="KNOWLEDGE",
            callback=there,
            help="Where the knowledge is now, if it has moved; for a DATASET, the knowledge whose item vectors to use.",
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Precision of the item vectors on disk."),
    ] = "float32",
    max_loss: Annotated[
        float,
        typer.Option(min=0, metavar="SHARE", help="Refuse a lower precision that loses more than this of NDCG@20."),
    ] = 0.01,
    index: Annotated[
        bool,
        typer.Option(
            "--index", help="Also build an approximate index, for catalogues of millions of items (needs usearch)."
        ),
    ] = False,
    examples: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="How many test histories, without user ids, the bundle's web page can show."
        ),
    ] = 20,
    json: Json = False,
) -> None:
    """Export a student as a bundle: item vectors, the encoder as ONNX, titles, a card; checked against PyTorch.

    For a DATASET it exports the item-kNN baseline, which needs no training: "item-kNN, demand" in tables or, with
    --knowledge, "item-kNN + text, demand". For a KNOWLEDGE directory (with --dataset) it writes the files that the
    DLLM2Rec authors' code reads.
    Example: dllm2rec export work/run --out work/bundle
    """
    from dllm2rec.data.directory import MARKER as DATASET
    from dllm2rec.knowledge.schema import MARKER as KNOWLEDGE
    from dllm2rec.workflow.runs import MARKER as RUN

    options: dict[str, Any] = {"precision": precision, "max_loss": max_loss, "shown": examples}
    if (source / KNOWLEDGE).is_file():
        unread = {
            "--knowledge": knowledge is not None,
            "--index": index,
            "--precision": precision != "float32",
            "--examples": examples != 20,
        }
        if any(unread.values()):
            option = next(name for name, given in unread.items() if given)
            raise UserError(f"{source}: is knowledge, which leaves as the original code's files; leave {option} out")
        _knowledge(source, dataset, out=out, json=json)
    elif (source / DATASET).is_file():
        if dataset is not None or index:
            option, why = (
                ("--dataset", "is one itself") if dataset is not None else ("--index", "gives no vectors to index")
            )
            raise UserError(f"{source}: is a dataset, which {why}; leave {option} out")
        _counting(source, knowledge, out=out, json=json, **options)
    elif not (source / RUN).is_file():
        raise UserError(
            f"{source}: not a run, dataset or knowledge directory; make one with `dllm2rec train`, `prepare` or `teach`"
        )
    else:
        _student(source, dataset, knowledge, out=out, json=json, index=index, **options)


def _knowledge(source: Path, dataset: Path | None, *, out: Path, json: bool) -> None:
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.legacy import export_legacy
    from dllm2rec.knowledge.store import Knowledge

    if dataset is None:
        raise UserError("exporting knowledge needs its dataset; give --dataset DATASET")
    export_legacy(Knowledge.load(source), Dataset.load(dataset), out=out)
    files = sorted(file.name for file in out.iterdir())
    show({"files": files}, f"{', '.join(files)} in {out}, as the original code reads them", as_json=json)


def _counting(source: Path, knowledge: Path | None, *, out: Path, json: bool, **options: Any) -> None:
    from dllm2rec.bundling.baseline import export_baseline
    from dllm2rec.core.figures import figure
    from dllm2rec.data import Dataset
    from dllm2rec.evaluation.metrics import HITS, METRIC
    from dllm2rec.knowledge.store import Knowledge

    known = None if knowledge is None else Knowledge.load(knowledge)
    with words_to_stderr():
        done = export_baseline(Dataset.load(source), out=out, knowledge=known, **options)
    unread = "" if known is None or done.text_weight else "; validation gives titles no weight"
    show(
        {
            "bundle": str(out),
            "bytes": done.bytes,
            "name": done.name,
            "text_weight": done.text_weight,
            "test": done.metrics,
            **_checked(done.check),
        },
        f"{done.name}: HR@20 {figure(done.metrics[HITS])}, NDCG@20 {figure(done.metrics[METRIC])} on the test "
        f"examples{unread}",
        _written(out, done.bytes, done.check, "the counting it was made from"),
        _try(out),
        as_json=json,
    )


def _student(
    source: Path, dataset: Path | None, knowledge: Path | None, *, out: Path, json: bool, **options: Any
) -> None:
    from dllm2rec.bundling.exporting import export as write
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.workflow.runs import Run

    with words_to_stderr():
        done = write(
            Run.load(source),
            out=out,
            dataset=None if dataset is None else Dataset.load(dataset),
            knowledge=None if knowledge is None else Knowledge.load(knowledge),
            **options,
        )
    approximate = [] if done.recall is None else [f"the index finds {done.recall:.1%} of the exact top 20"]
    show(
        {"bundle": str(out), "bytes": done.bytes, **_checked(done.check), "recall": done.recall},
        _written(out, done.bytes, done.check, "PyTorch"),
        *approximate,
        _try(out),
        as_json=json,
    )


def _checked(check: "Check") -> dict[str, Any]:
    return {"checked": check.examples, **vars(check)}


def _written(out: Path, size: int, check: "Check", source: str) -> str:
    same = f"the same top 20 as {source} for {check.examples:,} histories"
    if check.different:
        same = (
            f"on {check.examples:,} histories {check.overlap:.1%} of the top 20 of {source} and NDCG@20 "
            f"{check.ndcg:.4f} against {check.source_ndcg:.4f}"
        )
    return f"bundle in {out}, {size / 1e6:.1f} MB; {same}"


def _try(out: Path) -> str:
    return f"try it: dllm2rec recommend {out} --history ID,ID"

"""`dllm2rec report`: one HTML file about runs."""

from pathlib import Path
from typing import Annotated

import typer

from dllm2rec.cli.options import Against, HeldOut, Json, MaskHistory, Runs, show, words_to_stderr
from dllm2rec.core.errors import UserError


def report(
    *,
    runs: Runs,
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")],
    name: Annotated[str | None, typer.Option(help="Title of the report; by default the dataset's name.")] = None,
    split: HeldOut = "test",
    mask_history: MaskHistory = False,
    against: Against = None,
    json: Json = False,
) -> None:
    """Write a self-contained HTML report: the verdict, tables, curves, slices, users, settings.

    Example: dllm2rec report work/plain work/distilled --out work/report.html
    """
    from dllm2rec.comparison.comparing import tabulate
    from dllm2rec.comparison.evidence import gather
    from dllm2rec.reporting.report.page import write_report
    from dllm2rec.reporting.summary import Extras
    from dllm2rec.workflow.runs import Run

    if out.is_dir():
        raise UserError(f"--out {out}: is a directory; name the file, such as {out / 'report.html'}")
    with words_to_stderr():
        evidence = gather([Run.load(path) for path in runs], split=split, mask_history=mask_history)
        comparison = tabulate(evidence, against=against)
        write_report(evidence, comparison, Extras(name=name or comparison.dataset), out)
    verdict = comparison.verdict
    show(
        {"report": str(out), "bytes": out.stat().st_size, "verdict": verdict.model_dump(mode="json")},
        verdict.headline,
        f"report in {out}",
        as_json=json,
    )

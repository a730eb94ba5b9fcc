"""`dllm2rec tune`: the same search for every student and method of an experiment."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dllm2rec.cli.options import ExperimentOut, Jobs, Json, Set, end_failed, show, there, words_to_stderr


def tune(
    *,
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.toml", callback=there, help="Settings of an experiment with a `search` table."),
    ],
    out: ExperimentOut = None,
    jobs: Jobs = 1,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Search for the best settings on validation, as many trials for every method, plain students included.

    Resumes if it was interrupted; `dllm2rec run` then trains the chosen settings with all seeds.

    Example: dllm2rec tune configs/toys.toml --set search.trials=8
    """
    from dllm2rec.experiments.pipeline import tune as search
    from dllm2rec.reporting.summary import SEARCH_HEADER, importance_lines, search_rows
    from dllm2rec.settings.config import load_config

    experiment = load_config(config, settings or [])
    out = out or Path("runs") / experiment.name
    with words_to_stderr():
        done = search(experiment, out=out, jobs=jobs, say=lambda line: typer.echo(line, err=True))
    choices = done.choices
    table = Table(title=f"{experiment.name}: trials, by validation NDCG@20")
    for name in SEARCH_HEADER:
        table.add_column(name, overflow="fold")  # a value that is cut tells nothing
    for row in search_rows(choices):
        table.add_row(*row)
    lines = [f"importance for {line}" for line in importance_lines(choices)]
    settled = "".join(f" --set {shlex.quote(one)}" for one in settings or [])
    show(
        [choice.model_dump(mode="json") for choice in choices],
        table,
        *lines,
        f"all seeds with what was chosen: dllm2rec run {config} --out {out}{settled}",
        as_json=json,
    )
    end_failed(done.failed)

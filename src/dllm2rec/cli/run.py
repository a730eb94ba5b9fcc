"""`dllm2rec run`: the whole experiment, each stage cached."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from dllm2rec.cli.options import ExperimentOut, Jobs, Json, Set, end_failed, show, there, words_to_stderr


def run(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", callback=there, help="Settings of the experiment.")],
    out: ExperimentOut = None,
    jobs: Jobs = 1,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Run an experiment: prepare, teach, search, train, evaluate, compare, report.

    Resumes if it was interrupted; finished stages are cached. Example: dllm2rec run configs/demo.toml
    """
    from dllm2rec.cli.tables import comparison_text
    from dllm2rec.experiments.pipeline import run as run_experiment
    from dllm2rec.settings.config import load_config

    experiment = load_config(config, settings or [])
    with words_to_stderr():
        done = run_experiment(
            experiment,
            out=out or Path("runs") / experiment.name,
            jobs=jobs,
            say=lambda line: typer.echo(line, err=True),
        )
    result = {
        "experiment": str(done.path),
        "stages": [dataclasses.asdict(stage) | {"path": str(stage.path)} for stage in done.stages],
        "comparison": done.comparison.model_dump(mode="json"),
        "search": [choice.model_dump(mode="json") for choice in done.choices],
        "report": str(done.report),
    }
    cached = sum(stage.cached for stage in done.stages)
    show(
        result,
        *comparison_text(done.comparison),
        f"{cached} of {len(done.stages)} stages were cached; report in {done.report}",
        as_json=json,
    )
    end_failed(done.failed)

"""`dllm2rec update`: a trained student goes on with newer events."""

from pathlib import Path
from typing import Annotated

import typer

from dllm2rec.cli.options import (
    ItemColumn,
    ItemIdColumn,
    Json,
    Out,
    Set,
    TimeColumn,
    TimeUnitOfDataset,
    TitleColumn,
    UserColumn,
    given,
    show,
    there,
    words_to_stderr,
)


def update(
    *,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", callback=there, help="Directory made by `dllm2rec train` or `update`.")
    ],
    interactions: Annotated[
        Path, typer.Option(metavar="FILE", callback=there, help="Log with newer events; known events are skipped.")
    ],
    out: Out,
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=there, help="Ids and titles of new items; known ids are skipped."),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(
            metavar="KNOWLEDGE", callback=there, help="Knowledge of the extended dataset, if you made it elsewhere."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep the new student even if it is worse.")] = False,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    item_id_column: ItemIdColumn = None,
    title_column: TitleColumn = None,
    time_unit: TimeUnitOfDataset = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Continue training on newer events, with replay; refuses a student that became worse (exit code 3).

    Columns have the names that `prepare` was given, unless others are given here.

    Settings: replay, epochs, rate, patience.

    Example: dllm2rec update work/run --interactions new.csv --out work/run-2
    """
    from dllm2rec.core.figures import figure, p_text
    from dllm2rec.data import Columns
    from dllm2rec.evaluation.metrics import METRIC
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.settings.parsing import override, validate
    from dllm2rec.settings.update import UpdateSettings
    from dllm2rec.workflow.runs import Run
    from dllm2rec.workflow.updating import update as go_on

    columns = given(
        user=user_column,
        item=item_column,
        time=time_column,
        item_id=item_id_column,
        title=title_column,
        time_unit=time_unit,
    )
    with words_to_stderr():
        done = go_on(
            Run.load(run),
            interactions,
            out=out,
            items=items,
            knowledge=None if knowledge is None else Knowledge.load(knowledge),
            settings=validate(UpdateSettings, override({}, settings or [])),
            force=force,
            columns=Columns.model_validate(columns),
            say=lambda line: typer.echo(line, err=True),
        )
    old, new = done.old[METRIC], done.new[METRIC]
    show(
        {
            "run": str(out),
            "hash": done.run.config.hash,
            "new_events": done.new_events,
            "new_items": done.new_items,
            "learned": done.learned,
            "replayed": done.replayed,
            "old": done.old,
            "new": done.new,
            "examples": done.examples,
            "p_value": done.p_value,
        },
        f"{done.new_events:,} new events and {done.new_items:,} new items; learned from {done.learned:,} examples that "
        "are new to the student (the validation and test examples of its first training, too), and once more from "
        f"{done.replayed:,} that are not",
        f"on the newest tenth of the new events ({done.examples:,} examples), which the new run keeps for its test: "
        f"NDCG@20 {figure(new)}, the old student {figure(old)} ({p_text(done.p_value)})",
        f"run in {out}; a bundle of it: dllm2rec export {out} --out BUNDLE",
        as_json=json,
    )

"""`dllm2rec ask`: questions for a language model that runs elsewhere."""

from pathlib import Path
from typing import Annotated, cast

import typer

from dllm2rec.cli.options import Budget, Choose, DatasetPath, Json, Limit, SplitNames, show, there
from dllm2rec.core.errors import UserError


def ask(
    *,
    dataset: DatasetPath,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write the questions to, one JSON object per line.")
    ],
    split: SplitNames = None,
    limit: Limit = None,
    budget: Budget = None,
    choose: Choose = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="KNOWLEDGE", callback=there, help="Item vectors, for --choose.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order in which examples are chosen.")] = 0,
    json: Json = False,
) -> None:
    """Write questions for a language model that runs elsewhere; `dllm2rec teach --import` reads its answers.

    Example: dllm2rec ask work/dataset --limit 2000 --out work/questions.jsonl
    """
    from dllm2rec.cli.teach import asked_for
    from dllm2rec.data import Dataset
    from dllm2rec.settings.teacher import BigRecTeacher
    from dllm2rec.workflow.answers import ask as run

    opened = Dataset.load(dataset)
    options = {"vectors": vectors, "from": None, "choose": choose, "seed": seed}
    if vectors is not None and choose not in ("disagreement", "diverse"):
        raise UserError("--vectors: only --choose disagreement and --choose diverse read item vectors; leave it out")
    asked = asked_for(
        opened, "bigrec", options, split=split, limit=limit or [], budget=budget, settings=["tuning.examples=0"]
    )
    settings = cast("BigRecTeacher", asked)
    if not any(limit != 0 for limit in settings.limits.by_split().values()):
        raise UserError("--limit 0: that is no question at all; ask for some")
    counts = run(opened, settings, out=out)
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    show(
        {"questions": str(out), "counts": counts},
        f"{out}: questions about {told} examples; answers to them are knowledge by "
        f"dllm2rec teach {dataset} --import ANSWERS --out KNOWLEDGE",
        as_json=json,
    )

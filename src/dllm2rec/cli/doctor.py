"""`dllm2rec doctor`: what a teacher is worth before anyone trains on it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dllm2rec.cli.options import Json, KnowledgePath, show, there, words_to_stderr

_MARKS = {"good": ("+", "green"), "note": ("·", ""), "bad": ("!", "bold red")}


def doctor(
    *,
    knowledge: KnowledgePath,
    dataset: Annotated[
        Path, typer.Option(metavar="DATASET", callback=there, help="The dataset that the teacher labelled.")
    ],
    student_run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", callback=there, help="A trained student without a teacher, to compare with."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Also measure hits and confidence on the test examples.")
    ] = False,
    json: Json = False,
) -> None:
    """Examine a teacher's labels: coverage, hits on validation, confidence, texts, item vectors.

    Example: dllm2rec doctor work/knowledge --dataset work/dataset --student-run work/plain
    """
    from dllm2rec.comparison.diagnosis import headline
    from dllm2rec.comparison.doctor import examine
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.workflow.runs import Run

    with words_to_stderr():
        student = None if student_run is None else Run.load(student_run)
        page = examine(Knowledge.load(knowledge), Dataset.load(dataset), student=student, test=test)
    lines = [
        Text.assemble((f"{_MARKS[finding.level][0]} ", _MARKS[finding.level][1]), finding.text)
        for finding in page.findings
    ]
    show(
        {"headline": headline(page), **page.model_dump(mode="json")},
        Text(f"{page.name} on {page.dataset}", style="bold"),
        *lines,
        Text(headline(page), style="bold"),
        as_json=json,
    )

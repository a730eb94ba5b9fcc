"""Options that several verbs share, and how a verb speaks: results on standard output, words on standard error."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from dllm2rec.core.errors import UserError

if TYPE_CHECKING:
    from dllm2rec.experiments.stages import Stage

MAKERS = {"DATASET": "prepare", "KNOWLEDGE": "teach", "RUN": "train", "BUNDLE": "export", "RESULTS": "run"}
"""Which verb makes what an option names so."""


def there(parameter: typer.CallbackParam, value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Refuse a path at which nothing is, before libraries are loaded to read it.

    Raises:
        UserError: nothing is there.
    """
    for path in value if isinstance(value, list) else [value]:
        if path is not None and not path.exists():
            named = (parameter.metavar or "").removesuffix("...").split("|")
            makers = " or ".join(f"`dllm2rec {MAKERS[name]}`" for name in named if name in MAKERS)
            raise UserError(
                f"{path}: no such directory; {makers} makes one" if makers else f"{path}: no such file or directory"
            )
    return value


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a setting of this command; repeatable. `dllm2rec settings COMMAND` lists names, "
        "defaults and meanings.",
    ),
]
MaskHistory = Annotated[
    bool, typer.Option("--mask-history", help="Exclude the items of a history from its ranking; the paper does not.")
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Test all other methods against this one, student by student; by default taught students against plain.",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="How many models to train at once.")]
DatasetPath = Annotated[
    Path, typer.Argument(metavar="DATASET", callback=there, help="Directory made by `dllm2rec prepare`.")
]
KnowledgePath = Annotated[
    Path, typer.Argument(metavar="KNOWLEDGE", callback=there, help="Directory made by `dllm2rec teach`.")
]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", callback=there, help="Directories made by `dllm2rec train`.")
]
HeldOut = Annotated[Literal["validation", "test"], typer.Option("--split", help="Which split to evaluate on.")]
MovedDataset = Annotated[
    Path | None, typer.Option(metavar="DATASET", callback=there, help="Where the dataset is now, if it has moved.")
]


def _column(what: str) -> Any:
    return typer.Option(metavar="NAME", help=f"Column of {what}, if it is not detected automatically.")


UserColumn = Annotated[str | None, _column("the log's users")]
ItemColumn = Annotated[str | None, _column("the log's items")]
TimeColumn = Annotated[str | None, _column("the log's times")]
ItemIdColumn = Annotated[str | None, _column("the ids in the table of items")]
TitleColumn = Annotated[str | None, _column("the titles")]
_Unit = Literal["s", "ms", "us", "ns"]
TimeUnit = Annotated[_Unit, typer.Option(help="Unit of numeric timestamps.")]
TimeUnitOfDataset = Annotated[
    _Unit | None,
    typer.Option(help="Unit of numeric timestamps; by default the one that `prepare` was given."),
]
SplitNames = Annotated[
    list[str] | None,
    typer.Option(metavar="train|validation|test", help="Take only this split; repeatable. By default all three."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(metavar="N|SPLIT=N", help="Take at most N examples of each split, or exactly N of one."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="N|P%", help="Label N training examples, or a share of them; a larger budget later adds to these."
    ),
]
Choose = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Which training examples to label first: random, oldest, diverse, uncertain (item-kNN is least sure), or "
        "disagreement (where item-kNN and text neighbours differ most; without --vectors, where item-kNN and item "
        "co-occurrence vectors do). Default: oldest for references, random for all else; retrieval allows only random.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write to.")]
ExperimentOut = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Directory to write to; by default runs/<name>.")
]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def words_to_stderr() -> Iterator[None]:
    """Send what libraries print to standard error, so that standard output holds the result alone."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # or each try without a network is two lines
    with redirect_stdout(sys.stderr):
        yield


def end_failed(failed: "list[Stage]") -> None:
    """Name what failed of an experiment, and end with exit code 2, or 1 where a failure is a defect of ours."""
    if failed:
        typer.echo("\n".join(f"failed: {stage.name}: {stage.error}" for stage in failed), err=True)
        raise typer.Exit(1 if any(stage.ours for stage in failed) else 2)


def show(value: Any, *renderables: RenderableType, as_json: bool) -> None:
    """Print a result: ``value`` as JSON for machines, or ``renderables`` for people."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
        return
    console = Console(markup=False, emoji=False)  # a title may hold brackets and colons
    for renderable in renderables:  # a line stays one, so that a command in it can be pasted
        console.print(renderable, highlight=False, soft_wrap=isinstance(renderable, str | Text))

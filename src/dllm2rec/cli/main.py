"""The program `dllm2rec`."""

import signal
from importlib.metadata import version
from typing import Annotated

import typer

from dllm2rec.cli.add_items import add_items
from dllm2rec.cli.ask import ask
from dllm2rec.cli.compare import compare
from dllm2rec.cli.doctor import doctor
from dllm2rec.cli.evaluate import evaluate
from dllm2rec.cli.export import export
from dllm2rec.cli.guard import GuardedGroup
from dllm2rec.cli.paper import paper
from dllm2rec.cli.prepare import prepare
from dllm2rec.cli.recommend import recommend
from dllm2rec.cli.report import report
from dllm2rec.cli.run import run
from dllm2rec.cli.serve import serve
from dllm2rec.cli.settings import settings
from dllm2rec.cli.teach import teach
from dllm2rec.cli.train import train
from dllm2rec.cli.tune import tune
from dllm2rec.cli.update import update

app = typer.Typer(
    name="dllm2rec",
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Let a large language model teach a small, fast sequential recommender, and see whether it helped.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dllm2rec {version('dllm2rec')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the verb."""


for verb in (
    prepare,
    teach,
    ask,
    doctor,
    train,
    evaluate,
    compare,
    tune,
    run,
    report,
    paper,
    export,
    recommend,
    serve,
    add_items,
    update,
    settings,
):
    app.command()(verb)


def main() -> None:
    """Run the program; never returns. SIGTERM interrupts it as Ctrl-C does, so its temporary files go first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()

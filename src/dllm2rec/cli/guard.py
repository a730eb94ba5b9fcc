"""How every verb ends: one line, no traceback; 0 done, 1 our defect, 2 wrong input, 3 refused, 130 interrupted."""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from dllm2rec.core.errors import RefusedError, UserError
from dllm2rec.core.files import explain_os_error, os_error_of

_EXTRAS = {
    "train": ("optuna", "plotly", "polars", "scipy", "torch"),
    "serve": ("onnxruntime",),
    "ann": ("usearch",),
    "http": ("fastapi", "httptools", "prometheus_client", "uvicorn"),
    "export": ("onnx",),
    "teach": (
        "accelerate",
        "datasets",
        "gguf",
        "huggingface_hub",
        "peft",
        "sentence_transformers",
        "sentencepiece",
        "transformers",
        "trl",
    ),
}
_USERS_OS_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises of options that it can't read."""

    exit_code: int

    def format_message(self) -> str: ...


class GuardedGroup(TyperGroup):
    """Runs a verb and turns what it raises into one line on standard error and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the verb; without anything the help is shown."""
        if not args:
            return super().parse_args(ctx, args)
        with guarded():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb of ``ctx`` (a `typer.Context`)."""
        with guarded(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


@contextmanager
def guarded(*, debug: bool = False) -> Iterator[None]:
    """Turn exceptions into one line and an exit code.

    Args:
        debug: let a defect of ours show its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted; nothing is half-written, and the same command again goes on with what was finished", 130)
    except UserError as error:
        _end(str(error), error.code)
    except ModuleNotFoundError as error:
        _end(_explain_import(error), 2) if _extra(error) else _defect(error, debug=debug)
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if isinstance(error, _UsageError):
            context = getattr(error, "ctx", None)
            help_of = "" if context is None else f"; see {context.command_path} --help"
            message = " ".join(error.format_message().split())
            _end(f"{message.rstrip('.?').replace('Value error, ', '')}{help_of}", 2)
        failure = os_error_of(error)
        if failure is not None and failure.errno in _USERS_OS_ERRORS:
            _end(str(explain_os_error(failure, Path(os.fsdecode(failure.filename or ".")))), 2)
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported for this
            _end(
                "the GPU's memory is full; take a smaller language model, a smaller tuning.micro_batch_size, or "
                "free what else is on the GPU. The same command again goes on with what was finished",
                UserError.code,
            )
        if isinstance(error, BrokenPipeError):  # whoever read our output has left; typer ends quietly
            raise
        _defect(error, debug=debug)


def _end(line: str, code: int) -> NoReturn:
    start = {UserError.code: "error: ", RefusedError.code: "refused: "}.get(code, "")
    typer.echo(start + " ".join(line.split("\n")) if start else line, err=True)
    raise typer.Exit(code)


def _defect(error: Exception, *, debug: bool) -> NoReturn:
    if debug:
        typer.echo(traceback.format_exc(), err=True)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    _end(f"a defect of ours: {what} ({place}); please report it with the output of `dllm2rec --debug ...`", 1)


def _extra(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0]
    return next((extra for extra, packages in _EXTRAS.items() if package in packages), None)


def _explain_import(error: ModuleNotFoundError) -> str:
    return f"this needs {error.name}, which is not installed; run `pip install 'dllm2rec[{_extra(error)}]'`"

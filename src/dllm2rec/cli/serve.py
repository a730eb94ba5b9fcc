"""`dllm2rec serve`: a bundle behind HTTP."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from dllm2rec.cli.options import Json, Set, show, there
from dllm2rec.core.errors import UserError

KEY = "DLLM2REC_API_KEY"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def serve(
    *,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", callback=there, help="Directory made by `dllm2rec export`.")
    ],
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", callback=there, help="A second bundle, which the web page shows beside the first."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="How many processes share the port.")] = 1,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Answer over HTTP: recommendations, similar items, health, metrics, and a page to look at.

    If the environment variable DLLM2REC_API_KEY is set, requests need it as a bearer token, and POST /admin/reload
    swaps the bundle for what the directory holds by then; SIGHUP does so in any case.

    Example: dllm2rec serve work/bundle --port 8000 --set max_waiting=32
    """
    for name in THREADS:  # before numpy is imported; workers that all use all cores stand in each other's way
        os.environ.setdefault(name, "1")
    from dllm2rec.serving.http.server import serve as run
    from dllm2rec.serving.http.settings import ServeSettings
    from dllm2rec.settings.parsing import override, validate

    key = os.environ.get(KEY)
    if key is not None and not key.strip():
        raise UserError(f"{KEY} is set, but empty: set it to a key, or unset it to serve without one")
    values = {
        "bundle": bundle,
        "compare": compare,
        "host": host,
        "port": port,
        "workers": workers,
        "api_key": None if key is None else SecretStr(key),
    }

    def started(address: str) -> None:
        show(
            {"address": address, "pid": os.getpid()},
            f"{bundle} answers on {address} (page), {address}/v1/recommend, {address}/openapi.json; Ctrl-C ends it",
            as_json=json,
        )

    with suppress(KeyboardInterrupt):  # how a server is asked to end
        run(validate(ServeSettings, override(values, settings or [])), started=started)

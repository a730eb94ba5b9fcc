"""How a server is run, and what it refuses."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from dllm2rec.core.settings import Settings


class ServeSettings(Settings):
    """Settings of a server.

    Attributes:
        bundle: the directory that answers.
        compare: a second bundle, which the page shows beside it (say, the same student without a teacher).
        approximate: search the approximate index of `bundle`.
        host: address to listen on; the loopback unless said otherwise.
        port: 0 takes a free one.
        workers: processes that share the port.
        api_key: asked of every request under `/v1` and `/admin`; None asks nobody, and then there is no `/admin`.
        max_body: bytes of a request.
        max_waiting: requests that wait for a worker; to the others it answers 503 at once.
        timeout: seconds from the last line of a request's headers in which its body must have arrived and been
            answered, a reload aside. Who never ends the headers, or reads no answer, is left to a proxy in front.
    """

    bundle: Path
    compare: Path | None = None
    approximate: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    workers: PositiveInt = 1
    api_key: SecretStr | None = None
    max_body: PositiveInt = 1_000_000
    max_waiting: PositiveInt = 64
    timeout: PositiveFloat = 10.0

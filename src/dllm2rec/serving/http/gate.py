"""What stands before the application: limits, the key, measuring, headers. Plain ASGI: every request pays it."""

import asyncio
import hmac
import time
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm2rec.serving.http.metrics import Metrics
from dllm2rec.serving.http.problems import problem
from dllm2rec.serving.http.settings import ServeSettings

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
REFUSED = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
PATIENCE = 1.0  # seconds for a refusal to leave: one who reads nothing waits for nothing either
ADMIN = "/admin/"
KEYED = ("/v1/", ADMIN)
_TOO_LARGE = "the body is larger than {} bytes; ask for fewer histories at a time"


class Gate:
    """Let a request in, or refuse it before it costs anything.

    Args:
        app: what is behind.
        settings: the limits and the key.
        metrics: get one observation a request.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._admitted = 0
        self._key = None if settings.api_key is None else settings.api_key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                spent = f"app;dur={1000 * (time.perf_counter() - start):.3f}".encode()
                message["headers"] = [*message.get("headers", ()), *HEADERS, (b"server-timing", spent)]
            await send(message)

        try:
            refused = await self._let_in(scope, receive, answer)
            if refused is not None and status is None:
                refusal = problem(refused.status_code, refused.detail, REFUSED.get(refused.status_code))
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await refusal(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status or 500).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - start)

    async def _let_in(self, scope: Scope, receive: Receive, answer: Send) -> HTTPException | None:
        """Let what is behind answer; returns why it did not. A place is held until then, and not while that is told."""
        admitted = False
        try:
            if scope["path"].startswith(KEYED):  # a busy worker is still alive, and can still be asked how busy
                self._admit(scope)
                self._admitted += 1
                admitted = True
            hurries = not scope["path"].startswith(ADMIN)  # a reload that is half done would leave workers apart
            async with asyncio.timeout(self._settings.timeout if hurries else None):
                await self._app(scope, self._limited(receive), answer)
        except HTTPException as refused:
            return refused
        except TimeoutError:
            return HTTPException(503, f"not answered within {self._settings.timeout:g} s")
        finally:
            if admitted:
                asyncio.get_running_loop().call_soon(self._leave)
        return None

    def _admit(self, scope: Scope) -> None:
        """Refuse what can be refused by its first lines.

        Most requests are answered without a pause, so none is ever seen to wait while another is answered. Those that
        are ready in the same turn of the event loop wait for each other: each holds its place until the turn is over.
        """
        if self._admitted >= self._settings.max_waiting:
            raise HTTPException(503, "too many requests are waiting; come again in a second")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._key is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given, self._key):
                raise HTTPException(401, "give the key of this server as `Authorization: Bearer KEY`")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._settings.max_body:
            raise HTTPException(413, _TOO_LARGE.format(self._settings.max_body))

    def _leave(self) -> None:
        self._admitted -= 1

    def _limited(self, receive: Receive) -> Receive:
        """Stop a body that is longer than it may be, said or not."""
        size = 0

        async def limited() -> Message:
            nonlocal size
            message: dict[str, Any] = dict(await receive())
            size += len(message.get("body", b""))
            if size > self._settings.max_body:
                raise HTTPException(413, _TOO_LARGE.format(self._settings.max_body))
            return message

        return limited

"""Processes that share one socket.

SIGHUP reads the bundle again, in every worker; SIGTERM and SIGINT stop without losing a request that was sent. A worker
that dies is replaced.
"""

import asyncio
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead

from dllm2rec.core.errors import UserError
from dllm2rec.core.processes import end_with_parent
from dllm2rec.serving.http.app import create_app
from dllm2rec.serving.http.live import Live
from dllm2rec.serving.http.metrics import DIRECTORY
from dllm2rec.serving.http.settings import ServeSettings

BACKLOG = 2048
RETRY = 5  # seconds until a worker whose bundle is broken is started anew
TICK = 0.1  # seconds between two looks at the workers
PARTING = 0.5  # seconds that a server which stops still accepts, and after that still waits for requests
GRACE = 10  # seconds that requests under way get after that


def serve(settings: ServeSettings, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what and where.
        started: called with the address once it listens.

    Raises:
        UserError: the port is in use or forbidden, or a bundle is broken.
    """
    Live(
        settings.bundle, settings.compare, approximate=settings.approximate
    )  # a broken bundle is the user's to mend, before anything listens
    with _listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be obeyed; what is swapped by then is seen then
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if settings.workers == 1:
            _work(settings, listening)
        else:
            with tempfile.TemporaryDirectory(prefix="dllm2rec-metrics-") as folder:
                os.environ[DIRECTORY] = folder
                _Manager(settings, listening).run()


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sends at once only if told
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"can't listen on {settings.host} port {settings.port} ({reason}); choose another with --port or --host"
        ) from None
    listening.listen(BACKLOG)
    return listening


def _work(settings: ServeSettings, listening: socket.socket) -> None:
    """Serve in this process."""

    def tell_others() -> None:
        if settings.workers > 1:
            os.kill(os.getppid(), signal.SIGHUP)

    app = create_app(settings, reloaded=tell_others)
    app.router.lifespan_context = _reload_on_hangup
    config = uvicorn.Config(
        app,
        loop="asyncio",  # uvloop accepts one connection a turn: under load a new one waits for seconds
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    _Server(config).run([listening])


class _Server(uvicorn.Server):
    """Ends connections with an answer; uvicorn alone ends those that wait, also where a request is on its way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let each connection end with its next answer, then end those that stay silent."""
        await asyncio.sleep(PARTING)  # by then the manager has closed its socket, in which others would wait for nobody
        quiet, end = 0, time.monotonic() + PARTING
        while quiet < 2 and time.monotonic() < end:  # a turn of the loop accepts who waits, the next connects them
            await asyncio.sleep(0)
            quiet = 0 if select.select(sockets or (), (), (), 0)[0] else quiet + 1
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        end = time.monotonic() + PARTING
        while self.server_state.connections and time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _work_or_wait(settings: ServeSettings, listening: socket.socket) -> None:
    """Serve in a process that is started anew when it ends: not at once where the bundle is broken by now."""
    end_with_parent()
    try:
        _work(settings, listening)
    except UserError as error:
        print(f"a worker can't serve: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a server
        time.sleep(RETRY)


@asynccontextmanager
async def _reload_on_hangup(app: FastAPI) -> AsyncIterator[None]:
    loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def reload() -> None:
        with suppress(UserError):  # the log has it, and what answered goes on answering
            now = await asyncio.to_thread(app.state.live.reload, if_outdated=True)
            app.state.metrics.serve(now.main.version)

    def start() -> None:
        task = asyncio.create_task(reload())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, start)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    start()  # swapped while this worker began, and could not be told
    yield
    loop.remove_signal_handler(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class _Manager:
    """Keeps as many workers as were asked for, and passes signals on."""

    def __init__(self, settings: ServeSettings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._context = get_context("spawn")
        self._workers: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda number, _frame: self._tell(number))
        while not self._stopping:
            for worker in [worker for worker in self._workers if not worker.is_alive()]:
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # its bundle answers no more
                self._workers.remove(worker)
            self._workers += [self._start() for _ in range(self._settings.workers - len(self._workers))]
            time.sleep(TICK)
        self._listening.close()
        self._tell(signal.SIGTERM)
        for worker in self._workers:
            worker.join()

    def _start(self) -> BaseProcess:
        worker = self._context.Process(target=_work_or_wait, args=(self._settings, self._listening), daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it inherits that, and obeys when it can
        worker.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        return worker

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.is_alive() and worker.pid is not None:
                os.kill(worker.pid, number)

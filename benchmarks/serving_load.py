"""How many requests a second `dllm2rec serve` answers, and what it does when ten times as many are wanted.

    python benchmarks/serving_load.py [--seconds 10] [--workers 1] [--items 17408]

The client runs on the same machine, and takes its share of it. A connection asks again as soon as it has its answer, so
the number of connections is the number of requests under way: a few for the speed, many for the overload.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from random_bundle import build_random, write_bundle

HISTORY, K = 10, 20
FEW, MANY = 8, 640
WARM_UP = 2.0


@dataclass
class Seen:
    """What the connections saw: times in seconds of answers, by status."""

    times: list[float] = field(default_factory=list)
    shed: int = 0
    other: int = 0


class Connection(asyncio.Protocol):
    """Asks over and over on one connection."""

    def __init__(self, requests: list[bytes], seen: Seen, until: float) -> None:
        self.requests, self.seen, self.until = requests, seen, until
        self.number, self.buffer, self.start = 0, b"", 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.start = time.perf_counter()
        self.transport.write(self.requests[self.number % len(self.requests)])
        self.number += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self.buffer = b""
        status = int(head[9:12])
        if status == 200:
            self.seen.times.append(time.perf_counter() - self.start)
        elif status == 503:
            self.seen.shed += 1
        else:
            self.seen.other += 1
        if time.perf_counter() < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def request(history: list[int]) -> bytes:
    body = json.dumps({"histories": [history], "k": K}).encode()
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def load(port: int, connections: int, seconds: float, items: int) -> Seen:
    generator, loop = np.random.default_rng(0), asyncio.get_running_loop()
    requests = [request(history) for history in generator.integers(0, items, (500, HISTORY)).tolist()]
    seen, until = Seen(), time.perf_counter() + seconds
    made = []
    for number in range(connections):
        mine = requests[number % 500 :] + requests[: number % 500]
        _, connection = await loop.create_connection(lambda mine=mine: Connection(mine, seen, until), "127.0.0.1", port)
        made.append(connection)
    await asyncio.gather(*(connection.done for connection in made))
    return seen


def resident(pid: int) -> int:
    """Megabytes in memory of a process and its children."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:
            continue
        if pid in (int(status["Pid"]), int(status["PPid"])):
            total += int(status.get("VmRSS", "0 kB").split()[0]) // 1024
    return total


def report(name: str, seen: Seen, seconds: float, memory: int) -> None:
    times = 1000 * np.array(seen.times or [np.nan])
    shed = seen.shed / max(1, seen.shed + len(seen.times))
    print(
        f"{name}: {len(seen.times) / seconds:,.0f} answers/s, p50 {np.median(times):.1f} ms, "
        f"p99 {np.percentile(times, 99):.1f} ms, shed {shed:.0%}, other {seen.other}, memory {memory} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--items", type=int, default=17_408)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(build_random(options.items), bundle)
        program = [Path(sys.executable).with_name("dllm2rec"), "serve", bundle, "--port", "0", "--json"]
        with subprocess.Popen(
            [*program, "--workers", str(options.workers)], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            port = int(json.loads(server.stdout.readline())["address"].rsplit(":", 1)[1])
            try:
                asyncio.run(load(port, FEW, WARM_UP, options.items))
                for name, connections in (("asked", FEW), ("overload", MANY), ("after", FEW)):
                    seen = asyncio.run(load(port, connections, options.seconds, options.items))
                    report(f"{name} ({connections} connections)", seen, options.seconds, resident(server.pid))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()

"""What Prometheus reads.

With several workers every process writes its figures to a directory that `PROMETHEUS_MULTIPROC_DIR` names, and the one
that is asked adds them up.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """The figures of a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.latency = Histogram(
            "dllm2rec_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.requests = Counter(
            "dllm2rec_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self.items = Counter(
            "dllm2rec_history_items",
            "Items of histories, by whether the catalogue knows them.",
            ["known"],
            registry=self._registry,
        )
        self.fallbacks = Counter(
            "dllm2rec_fallbacks", "Histories that got the most popular items.", registry=self._registry
        )
        self._bundle = Gauge(
            "dllm2rec_bundle",
            "1 for the bundle that answers.",
            ["version"],
            multiprocess_mode="livemax",
            registry=self._registry,
        )
        self._version: str | None = None

    def serve(self, version: str) -> None:
        """Say which bundle answers from now on."""
        if self._version is not None:
            self._bundle.labels(self._version).set(0)
        self._bundle.labels(version).set(1)
        self._version = version

    def render(self) -> bytes:
        """Write the figures of all workers in Prometheus' text format."""
        if DIRECTORY not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

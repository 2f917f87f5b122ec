"""What this process counts, in Prometheus' text format at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.api.engine import Outcome


class Metrics(Collector):
    """Counts that are on the fast path are plain integers, read when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.cached_responses = 0
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._operations = Counter(
            "tollgate_graphql_operations",
            "GraphQL operations by outcome: ok, error (in some field), refused (nothing was run).",
            ["outcome"],
            registry=self.registry,
        )
        self.graphql_seconds = Histogram(
            "tollgate_graphql_seconds",
            "Time to run an operation that no cached response answered.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=self.registry,
        )
        self._by_outcome = {name: self._operations.labels(name) for name in ("ok", "error", "refused")}
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A value that is read at each scrape."""
        self._gauges[name] = (documentation, read)

    def count(self, outcome: Outcome) -> None:
        errors = "errors" in outcome.body
        self._by_outcome["refused" if outcome.is_request_error else "error" if errors else "ok"].inc()

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "tollgate_graphql_cached_responses",
            "Queries answered with a whole cached response.",
            value=self.cached_responses,
        )
        for name, (documentation, read) in self._gauges.items():
            yield GaugeMetricFamily(name, documentation, value=read())

    def render(self) -> bytes:
        return generate_latest(self.registry)

"""Prometheus metrics of the calls that this process runs."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.observability.observation import AttemptObservation

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class CallMetrics:
    """Labels are the provider's name and the model's id at the provider, so there are as many series as models used."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["provider", "model"]
        self._attempts = Counter(
            "tollgate_attempts",
            "Ended attempts by outcome, and the error's code where there is one.",
            [*labels, "operation", "outcome", "code"],
            registry=registry,
        )
        self._queue_seconds = Histogram(
            "tollgate_queue_seconds",
            "From a request's submission to its first start.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._call_seconds = Histogram(
            "tollgate_call_seconds",
            "From the start of a call to the end of the provider's answer.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_chunk_seconds = Histogram(
            "tollgate_first_chunk_seconds",
            "From the start of a streamed call to its first chunk.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._settle_seconds = Histogram(
            "tollgate_settle_seconds",
            "To write a result, its ledger lines and the settlement of the limits.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "tollgate_tokens",
            "Tokens by kind; cache_read and cache_write are a part of input, reasoning is a part of output.",
            [*labels, "kind"],
            registry=registry,
        )
        self._cost = Counter(
            "tollgate_cost_usd",
            "What calls came to, for charts: the exact cost is in the ledger.",
            labels,
            registry=registry,
        )

    def attempt_ended(self, observation: AttemptObservation) -> None:
        names = (observation.provider, observation.request_model)
        code = observation.error_code or ""
        self._attempts.labels(*names, observation.operation, observation.outcome, code).inc()
        self._call_seconds.labels(*names).observe(observation.call_seconds)
        self._settle_seconds.labels(*names).observe(observation.settle_seconds)
        if observation.attempt == 1 and observation.queue_seconds is not None:
            self._queue_seconds.labels(*names).observe(observation.queue_seconds)
        if observation.first_chunk_seconds is not None:
            self._first_chunk_seconds.labels(*names).observe(observation.first_chunk_seconds)
        if (usage := observation.usage) is not None:
            for kind, count in (
                ("input", usage.input_tokens),
                ("output", usage.output_tokens),
                ("cache_read", usage.cache_read_tokens),
                ("cache_write", usage.cache_write_tokens),
                ("reasoning", usage.reasoning_tokens),
            ):
                if count:
                    self._tokens.labels(*names, kind).inc(count)
        if observation.cost is not None:
            self._cost.labels(*names).inc(observation.cost)

"""OpenTelemetry spans of calls, with the GenAI semantic conventions.

Conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (checked 2026-11-20). Switched on by the
standard variable OTEL_EXPORTER_OTLP_ENDPOINT; the exporter and the sampler are configured by its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from app.observability.observation import AttemptObservation
from app.providers.operations import Operation

_OPERATIONS: Final[Mapping[Operation, str]] = {Operation.CHAT: "chat", Operation.EMBEDDING: "embeddings"}
"""As the conventions name them; the others under our own names."""
_encode: Final = msgspec.json.Encoder().encode


class CallTracing:
    """A span per attempt, with its wait in the queue, the call and the settlement as its parts.

    `records_content`: prompts and answers become attributes. Off unless an operator switched it on.
    """

    def __init__(self, tracer: Tracer, *, records_content: bool) -> None:
        self._tracer = tracer
        self._records_content = records_content

    def attempt_ended(self, observation: AttemptObservation) -> None:
        ended = observation.ended_at
        called = ended - timedelta(seconds=observation.settle_seconds)
        started = called - timedelta(seconds=observation.call_seconds)
        # The wait was measured by the database's clock: its length counts, not where that clock stood.
        queued = started - timedelta(seconds=observation.queue_seconds or 0.0)
        operation = _OPERATIONS.get(observation.operation, observation.operation)
        whole = self._tracer.start_span(
            "tollgate.attempt",
            start_time=_nanoseconds(queued),
            attributes={
                "tollgate.request.id": observation.request_id,
                "tollgate.attempt": observation.attempt,
                "tollgate.outcome": observation.outcome,
            },
        )
        context = set_span_in_context(whole)
        wait = self._tracer.start_span("tollgate.queue", context, start_time=_nanoseconds(queued))
        wait.end(_nanoseconds(started))
        call = self._tracer.start_span(
            f"{operation} {observation.request_model}",
            context,
            kind=SpanKind.CLIENT,
            start_time=_nanoseconds(started),
            attributes=self._call_attributes(observation, operation),
        )
        if observation.first_chunk_seconds is not None:
            first = started + timedelta(seconds=observation.first_chunk_seconds)
            call.add_event("gen_ai.first_chunk", timestamp=_nanoseconds(first))
        if observation.error_code is not None:
            for span in (call, whole):
                span.set_status(Status(StatusCode.ERROR, observation.error_code))
        call.end(_nanoseconds(called))
        settle = self._tracer.start_span("tollgate.settle", context, start_time=_nanoseconds(called))
        settle.end(_nanoseconds(ended))
        whole.end(_nanoseconds(ended))

    def _call_attributes(self, observation: AttemptObservation, operation: str) -> dict[str, AttributeValue]:
        usage = observation.usage
        values: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": observation.provider,
            "gen_ai.request.model": observation.request_model,
            "gen_ai.response.model": observation.response_model,
            "gen_ai.response.finish_reasons": [observation.finish_reason] if observation.finish_reason else None,
            "gen_ai.usage.input_tokens": usage.input_tokens if usage is not None else None,
            "gen_ai.usage.output_tokens": usage.output_tokens if usage is not None else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens if usage is not None else None,
            "error.type": observation.error_code,
            "http.response.status_code": observation.http_status,
            "tollgate.streamed": observation.is_streamed,
        }
        if self._records_content:
            values["gen_ai.input.messages"] = _encode(observation.request).decode()
            values["gen_ai.output.messages"] = _encode(observation.output).decode()
        return {name: value for name, value in values.items() if value is not None}


def tracer_provider(instance_id: str, exporter: SpanExporter | None = None) -> TracerProvider:
    """Exports in the background over OTLP/HTTP, or to `exporter`. To be shut down when the process ends."""
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    name = os.environ.get("OTEL_SERVICE_NAME", "tollgate")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name, SERVICE_INSTANCE_ID: instance_id}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000

"""A real OTLP/HTTP collector for tests: decodes what exporters send and keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class SpanCollector:
    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.raw += body
            self.spans += [
                span for part in message.resource_spans for scope in part.scope_spans for span in scope.spans
            ]
            self._changed.notify_all()

    def wait_for(self, name: str, timeout_seconds: float = 20) -> Span:
        """The first span of that name."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((span for span in self.spans if span.name == name), None), timeout_seconds
            )
        assert found is not None, f"no span {name!r} among {[span.name for span in self.spans]}"
        return found


@contextmanager
def span_collector() -> Iterator[SpanCollector]:
    collector = SpanCollector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def attributes(span: Span) -> dict[str, object]:
    """Plain values; a list is a tuple."""
    found: dict[str, object] = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        if kind == "array_value":
            found[item.key] = tuple(entry.string_value for entry in item.value.array_value.values)
        else:
            found[item.key] = getattr(item.value, kind) if kind is not None else None
    return found

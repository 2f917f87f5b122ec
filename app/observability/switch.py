"""Whether OpenTelemetry is switched on; told apart from it, so that it is not even imported where it is off."""

from __future__ import annotations

import os


def tracing_is_switched_on() -> bool:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"

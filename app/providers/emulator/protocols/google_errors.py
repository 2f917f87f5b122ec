"""Errors of Google's protocol: https://cloud.google.com/apis/design/errors."""

from __future__ import annotations

from typing import Any

from app.providers.emulator.wire import Refusal

_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_TYPES = "type.googleapis.com/google.rpc."


def error_object(refusal: Refusal) -> dict[str, Any]:
    status = _STATUSES.get(refusal.status, "INTERNAL" if refusal.status >= 500 else "INVALID_ARGUMENT")
    error: dict[str, Any] = {"code": refusal.status, "message": refusal.message, "status": status}
    details: list[dict[str, Any]] = []
    if refusal.code is not None:
        details.append({"@type": _TYPES + "ErrorInfo", "reason": refusal.code, "domain": "googleapis.com"})
    if refusal.kind is not None:
        quota = {"quotaMetric": refusal.kind, "quotaId": f"{refusal.kind.title()}PerMinutePerProject"}
        details.append({"@type": _TYPES + "QuotaFailure", "violations": [quota]})
    delay = refusal.retry_after_ms / 1000 if refusal.retry_after_ms is not None else refusal.retry_after
    if isinstance(delay, int | float):
        # Google tells here how long to wait, where others have the header Retry-After.
        details.append({"@type": _TYPES + "RetryInfo", "retryDelay": f"{delay:.9g}s"})
    if details:
        error["details"] = details
    return error

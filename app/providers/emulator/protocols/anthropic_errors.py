"""Errors of the Anthropic protocol: https://docs.anthropic.com/en/api/errors."""

from __future__ import annotations

import orjson

from app.providers.emulator.wire import Refusal

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def write_error(refusal: Refusal, request_id: str) -> bytes:
    kind = _TYPES.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": refusal.message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})

"""Errors of the OpenAI protocol."""

from __future__ import annotations

from typing import Any

import orjson

from app.providers.emulator.wire import Refusal

_TYPES = {
    403: "permission_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error_object(refusal: Refusal) -> dict[str, Any]:
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {
        "message": refusal.message,
        "type": refusal.kind or kind,
        "param": refusal.param,
        "code": refusal.code or _CODES.get(refusal.status),
    }


def write_error(refusal: Refusal) -> bytes:
    return orjson.dumps({"error": error_object(refusal)})

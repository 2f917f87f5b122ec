"""Google's errors: a status word, and details that may say how long to wait.

https://ai.google.dev/gemini-api/docs/troubleshooting and google.rpc.RetryInfo of
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto (2026-11-20)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.errors import InvalidResponse, ProviderError
from app.providers.adapter import WireResponse
from app.providers.google import wire
from app.providers.http_errors import error_for_status
from app.providers.wire import decode_answer, plain_error_text

_STATUS_OF: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_RPC_CODES: Final = {
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
"""https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11-20)"""


def error_of(response: WireResponse) -> ProviderError:
    try:
        body = decode_answer(wire.error_decoder, response.body)
    except InvalidResponse:
        return error_for_status(response.status, plain_error_text(response), headers=response.headers)
    if isinstance(body, list):
        # As a stream without `alt=sse` has it.
        if not body:
            return error_for_status(response.status, "", headers=response.headers)
        body = body[0]
    return error_of_detail(body.error, status=response.status, headers=response.headers)


def error_of_detail(
    detail: wire.ErrorDetail, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ProviderError:
    status = _STATUS_OF.get(detail.status, status or detail.code or 500)
    if any(item.get("reason") == "API_KEY_INVALID" for item in detail.details):
        # Google says INVALID_ARGUMENT of a wrong key.
        status = 401
    known = dict(headers or {})
    delay = _retry_delay(detail)
    if delay is not None:
        known.setdefault("retry-after", delay)
    return error_for_status(status if 400 <= status <= 599 else 500, detail.message, headers=known)


def error_of_operation(error: wire.OperationError, response: WireResponse) -> ProviderError:
    """Of work that failed after it was accepted: an answer of status 200 tells it, and that stays its status."""
    status = _STATUS_OF.get(_RPC_CODES.get(error.code, ""), 500)
    found = error_for_status(status, error.message, headers={})
    found.http_status = response.status
    return found


def _retry_delay(detail: wire.ErrorDetail) -> str | None:
    """A duration in seconds: "58s", "58.934310785s"."""
    for item in detail.details:
        delay = item.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return delay.removesuffix("s")
    return None

"""Errors as OpenAI and its compatible servers write them, and as its SDK reads them.

Wire format: https://platform.openai.com/docs/guides/error-codes (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.errors import (
    AuthenticationFailed,
    CallTimeout,
    ConnectionFailed,
    DatabaseUnavailable,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    PermissionDenied,
    PermitExpired,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    TollgateError,
)
from app.providers.adapter import WireResponse
from app.providers.bodies import public_message, retry_headers, status_of
from app.providers.dialect import EncodedError
from app.providers.http_errors import error_for_status

_MAX_MESSAGE_LENGTH: Final = 500
_BY_TYPE: Final[Mapping[str, type[ProviderError]]] = {
    "invalid_request_error": InvalidRequest,
    "authentication_error": AuthenticationFailed,
    "permission_error": PermissionDenied,
    "not_found_error": ModelNotFound,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "insufficient_quota": RateLimited,
    "tokens": RateLimited,
    "requests": RateLimited,
    "timeout": CallTimeout,
}

_TYPES: Final = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
_WORTH_ANOTHER_TRY: Final = (RateLimited, ProviderUnavailable, ConnectionFailed, PermitExpired, DatabaseUnavailable)


def raise_for_status(response: WireResponse) -> None:
    """Raises the ProviderError of a status that is no success."""
    if 200 <= response.status < 300:
        return
    raise error_for_status(
        response.status,
        _message_of(response.body),
        headers=response.headers,
        provider_request_id=response.headers.get("x-request-id"),
    )


def error_in_stream(error: Any, provider_request_id: str | None = None) -> ProviderError:
    """The error that an event of a stream tells. Compatible servers put the HTTP status in `code`."""
    body = error if isinstance(error, dict) else {"message": error}
    message = body.get("message")
    text = message.replace("\0", "\ufffd") if isinstance(message, str) else "no message"
    code = body.get("code")
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        return error_for_status(code, text, headers={}, provider_request_id=provider_request_id)
    kinds = [_BY_TYPE[name] for name in (body.get("type"), code) if isinstance(name, str) and name in _BY_TYPE]
    kind = kinds[0] if kinds else ProviderUnavailable
    return kind(
        f"the provider broke its stream off: {text.strip()[:_MAX_MESSAGE_LENGTH] or 'no message'}",
        http_status=200,
        provider_request_id=provider_request_id,
    )


def _message_of(body: bytes) -> str:
    """`error.message` where the body has one; a plain text body else."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:_MAX_MESSAGE_LENGTH].decode(errors="replace").replace("\0", "\ufffd")
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    return error.replace("\0", "\ufffd") if isinstance(error, str) else ""


# --- the gateway's side -----------------------------------------------------------------------------------------------


def error_body(error: TollgateError) -> dict[str, Any]:
    """`{"message", "type", "param", "code"}`, of which the SDK makes its exception."""
    status = status_of(error)
    return {
        "message": public_message(error),
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": ".".join(error.path) or None,
        "code": "model_not_found" if _is_of_model(error) else error.code.lower(),
    }


def _is_of_model(error: TollgateError) -> bool:
    return isinstance(error, ModelUnavailable) or (isinstance(error, NotFound) and error.kind == "LlmModel")


def encode_error(error: TollgateError) -> EncodedError:
    """The SDK tries 408, 409, 429 and 5xx again by itself, unless `x-should-retry` says that it is of no use."""
    status = status_of(error)
    headers = retry_headers(error)
    if (status in (408, 409, 429) or status >= 500) and not isinstance(error, _WORTH_ANOTHER_TRY):
        headers["x-should-retry"] = "false"
    return EncodedError(status, msgspec.json.encode({"error": error_body(error)}), headers)

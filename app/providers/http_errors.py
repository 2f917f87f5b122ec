"""From an HTTP status to the error tree, alike for every protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from app.errors import (
    AuthenticationFailed,
    CallTimeout,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    ProviderConflict,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)

_MAX_MESSAGE_LENGTH: Final = 500
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: ModelNotFound,
    408: CallTimeout,
    409: ProviderConflict,
    413: PayloadTooLarge,
    422: InvalidRequest,
    429: RateLimited,
}


def error_for_status(
    status: int,
    message: str,
    *,
    headers: Mapping[str, str],
    provider_request_id: str | None = None,
    now: datetime | None = None,
) -> ProviderError:
    """The error for a status that is no success. `headers` has lower-case names."""
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = ProviderUnavailable if status >= 500 else InvalidRequest if 400 <= status < 500 else InvalidResponse
    text = message.strip()[:_MAX_MESSAGE_LENGTH] or "no message"
    return kind(
        f"the provider answered {status}: {text}",
        http_status=status,
        retry_after_seconds=retry_after_seconds(headers, now=now),
        provider_request_id=provider_request_id,
    )


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """From `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3). None: not usable."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        # A year or an offset beyond all bounds overflows.
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None

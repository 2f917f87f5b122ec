"""What the gateway's dialects share: reading a client's JSON with errors that name the field, and error statuses."""

from __future__ import annotations

import math
import re
from typing import Any, Final, TypeVar

import msgspec

from app.errors import (
    AuthenticationFailed,
    CallCancelled,
    CallTimeout,
    Conflict,
    ConnectionFailed,
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    PermitExpired,
    ProviderConflict,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    TollgateError,
    Unauthenticated,
    ValidationError,
)

T = TypeVar("T")

_AT: Final = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<where>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `(?P<expected>.*)`, got `(?P<got>.*)`", re.DOTALL)
_INVALID: Final = re.compile(r"Invalid (?:enum )?value (?P<got>.*)", re.DOTALL)
_STATUS: Final[tuple[tuple[type[TollgateError], int], ...]] = (
    # The first that fits.
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (ModelUnavailable, 404),
    (Conflict, 409),
    (RequestRefused, 400),
    (PayloadTooLarge, 413),
    (InvalidRequest, 400),
    (AuthenticationFailed, 401),
    (PermissionDenied, 403),
    (ModelNotFound, 404),
    (ProviderConflict, 409),
    (RateLimited, 429),
    (CallTimeout, 504),
    (CallCancelled, 499),
    (ConnectionFailed, 502),
    (InvalidResponse, 502),
    (PermitExpired, 503),
    (DatabaseUnavailable, 503),
)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a client sent. Raises ValidationError."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValidationError("body", body[:80].decode(errors="replace"), f"a JSON object ({error!s:.120})") from None
    if not isinstance(value, dict):
        raise ValidationError("body", value, "a JSON object")
    if b"\\u0000" in body and _has_nul(value):
        raise ValidationError("body", "\0", "text without NUL characters")
    return value


def convert(value: Any, kind: type[T]) -> T:
    """Into a msgspec type. Raises ValidationError with the field's path."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _validation_error(str(error)) from None
    except RecursionError:
        raise ValidationError("body", "...", "nested less deeply") from None


def status_of(error: TollgateError) -> int:
    """The status that a client of the gateway is answered with."""
    if isinstance(error, ProviderUnavailable):
        # Overload and overlong work are told apart from failure, as clients wait differently.
        return error.http_status if error.http_status in (503, 504, 529) else 502
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def public_message(error: TollgateError) -> str:
    """What a client may read of it: faults of our own are told in the log, to clients with its id at most."""
    if isinstance(error, RequestRefused | ProviderError) or type(error) is TollgateError:
        return error.message
    return "the gateway cannot answer now" if isinstance(error, DatabaseUnavailable) else "internal error"


def retry_headers(error: TollgateError) -> dict[str, str]:
    seconds = error.retry_after_seconds if isinstance(error, ProviderError) else None
    return {} if seconds is None else {"retry-after": str(math.ceil(seconds))}


def _has_nul(value: Any) -> bool:
    """PostgreSQL holds none."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str) and "\0" in item:
            return True
        if isinstance(item, dict):
            left += item.keys()
            left += item.values()
        elif isinstance(item, list):
            left += item
    return False


def _validation_error(message: str) -> ValidationError:
    at = _AT.fullmatch(message)
    what, where = (at["what"], at["where"] or "") if at else (message, "")
    if found := _UNKNOWN.fullmatch(what):
        return ValidationError(_join(where, found["name"]), "given", "left out: the gateway does not know it")
    if found := _MISSING.fullmatch(what):
        return ValidationError(_join(where, found["name"]), None, "given")
    if found := _EXPECTED.fullmatch(what):
        return ValidationError(where or "body", found["got"], f"of type {found['expected']}")
    if found := _INVALID.fullmatch(what):
        return ValidationError(where or "body", found["got"].strip("'"), "a value that the gateway knows")
    return ValidationError(where or "body", "what was sent", what[:1].lower() + what[1:])


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

"""The bounds of a submission, apart from what the model itself takes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson

from app.errors import ValidationError
from app.requests.records import SubmitRequest

MAX_PRIORITY: Final = 1_000_000
MAX_IDEMPOTENCY_KEY_LENGTH: Final = 255
MAX_PAYLOAD_BYTES: Final = 48 * 1024 * 1024
MAX_PARAMETERS_BYTES: Final = 1024 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_FALLBACKS: Final = 10


def validate_submission(submission: SubmitRequest, *, now: datetime) -> None:
    """Raises ValidationError."""
    if not -MAX_PRIORITY <= submission.priority <= MAX_PRIORITY:
        raise ValidationError("priority", submission.priority, f"between -{MAX_PRIORITY} and {MAX_PRIORITY}")
    key = submission.idempotency_key
    if key is not None and not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH:
        raise ValidationError("idempotencyKey", key, f"1 to {MAX_IDEMPOTENCY_KEY_LENGTH} characters long")
    if key is not None and not is_storable_text(key):
        raise ValidationError("idempotencyKey", key, "free of NUL characters and halves of surrogate pairs")
    if submission.deadline is not None and submission.deadline <= now:
        raise ValidationError("deadline", submission.deadline.isoformat(), f"later than now ({now.isoformat()})")
    if len(submission.fallbacks) > MAX_FALLBACKS:
        raise ValidationError("fallbacks", f"{len(submission.fallbacks)} models", f"at most {MAX_FALLBACKS} models")
    bounded_json("metadata", submission.metadata, MAX_METADATA_BYTES)
    bounded_json("parameters", submission.parameters, MAX_PARAMETERS_BYTES)


def bounded_payload(field: str, encoded: bytes) -> bytes:
    """The JSON of a request, found storable. Raises ValidationError."""
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise ValidationError(field, f"{len(encoded)} bytes", f"at most {MAX_PAYLOAD_BYTES} bytes of JSON")
    if b"\\u0000" in encoded and _holds_nul(orjson.loads(encoded)):
        raise ValidationError(field, "NUL", "free of NUL characters, which the database cannot hold")
    return encoded


def bounded_json(field: str, value: Any, limit: int) -> None:
    """Raises ValidationError where the database could not hold the value, or not so much of it."""
    if not value:
        return
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        raise ValidationError(field, value, "JSON: integers of at most 64 bits, no half of a surrogate pair") from None
    if len(encoded) > limit:
        raise ValidationError(field, f"{len(encoded)} bytes", f"at most {limit} bytes of JSON")
    if b"\\u0000" in encoded and _holds_nul(value):
        raise ValidationError(field, value, "free of NUL characters, which the database cannot hold")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(map(_holds_nul, value))


def is_storable_text(text: str) -> bool:
    """Whether the database can hold it: it has no NUL, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)

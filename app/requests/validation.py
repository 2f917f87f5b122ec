"""What a submission may hold: shapes, bounds and contradictions, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from app.db.rows import LlmModel, LlmModelType
from app.errors import ValidationError
from app.limits.estimate import MAX_OUTPUT_PARAMETERS
from app.requests.records import SubmitRequest

MAX_PRIORITY: Final = 1_000_000
MAX_IDEMPOTENCY_KEY_LENGTH: Final = 255
MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_OUTPUT_TOKENS: Final = 10_000_000
ROLES: Final = ("system", "user", "assistant", "tool")

_RESERVED_PARAMETERS: Final = frozenset({"model", "messages", "input", "stream", "stream_options"})
_TEXT_TYPES: Final = (LlmModelType.TEXT, LlmModelType.CODE)
_NUMBER_BOUNDS: Final = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_COUNT_BOUNDS: Final = {
    "n": (1, 128),
    "seed": (-(2**63), 2**63 - 1),
    "max_completion_tokens": (1, MAX_OUTPUT_TOKENS),
    "max_tokens": (1, MAX_OUTPUT_TOKENS),
}


def validate_submission(submission: SubmitRequest, model: LlmModel, *, now: datetime) -> dict[str, Any]:
    """The payload to store, {"messages": [...]} or {"input": ...}. Raises ValidationError."""
    if not -MAX_PRIORITY <= submission.priority <= MAX_PRIORITY:
        raise ValidationError("priority", submission.priority, f"between -{MAX_PRIORITY} and {MAX_PRIORITY}")
    key = submission.idempotency_key
    if key is not None and not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH:
        raise ValidationError("idempotencyKey", key, f"1 to {MAX_IDEMPOTENCY_KEY_LENGTH} characters long")
    if key is not None and not is_storable_text(key):
        raise ValidationError("idempotencyKey", key, "free of NUL characters and halves of surrogate pairs")
    if submission.deadline is not None and submission.deadline <= now:
        raise ValidationError("deadline", submission.deadline.isoformat(), f"later than now ({now.isoformat()})")
    _bounded_json("metadata", submission.metadata, MAX_METADATA_BYTES)
    _parameters(submission.parameters, model)
    payload = _payload(submission, model)
    _bounded_json("messages" if "messages" in payload else "input", payload, MAX_PAYLOAD_BYTES)
    return payload


def _payload(submission: SubmitRequest, model: LlmModel) -> dict[str, Any]:
    if (submission.messages is None) == (submission.input is None):
        given = "both" if submission.messages is not None else "neither"
        raise ValidationError("messages", given, "given, or else input, and not both")
    if submission.messages is not None:
        if not submission.messages:
            raise ValidationError("messages", [], "at least one message")
        for index, message in enumerate(submission.messages):
            if message.get("role") not in ROLES:
                raise ValidationError(f"messages[{index}].role", message.get("role"), f"one of {', '.join(ROLES)}")
        return {"messages": submission.messages}
    if model.model_type in _TEXT_TYPES and not isinstance(submission.input, str):
        raise ValidationError("input", submission.input, f"a string for a {model.model_type} model")
    return {"input": submission.input}


def _parameters(parameters: Mapping[str, Any], model: LlmModel) -> None:
    if not isinstance(parameters, dict):
        raise ValidationError("parameters", parameters, "an object")
    _bounded_json("parameters", parameters, MAX_PAYLOAD_BYTES)
    for name, value in parameters.items():
        if name in _RESERVED_PARAMETERS:
            raise ValidationError(f"parameters.{name}", value, "left out: it is set by the request itself")
        if value is not None:
            _bounded_parameter(name, value)
    if model.max_output_tokens is None:
        return
    for name in MAX_OUTPUT_PARAMETERS:
        value = parameters.get(name)
        if value is not None and value > model.max_output_tokens:
            raise ValidationError(
                f"parameters.{name}", value, f"at most {model.max_output_tokens}, the model's maximum"
            )


def _bounded_parameter(name: str, value: Any) -> None:
    if (bounds := _NUMBER_BOUNDS.get(name)) is not None:
        low, high = bounds
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValidationError(f"parameters.{name}", value, f"a number between {low} and {high}")
    elif (counts := _COUNT_BOUNDS.get(name)) is not None:
        low, high = counts
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValidationError(f"parameters.{name}", value, f"a whole number between {low} and {high}")


def _bounded_json(field: str, value: Any, limit: int) -> None:
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

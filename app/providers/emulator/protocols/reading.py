"""What the protocols share in reading a request and in writing events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.providers.emulator.wire import bad_request

IMAGE_BYTES = 340
"""What an image in a prompt counts as: 85 tokens."""


def read_object(body: bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("We could not parse the JSON body of your request.") from None
    if not isinstance(request, dict):
        raise bad_request("The body must be a JSON object.")
    return request


def object_of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def objects_of(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def whole_number(request: Mapping[str, Any], name: str, default: int, *, most: int | None = None) -> int:
    """Raises Refused."""
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        span = "of at least 1" if most is None else f"from 1 to {most}"
        raise bad_request(f"Invalid '{name}': expected an integer {span}, not {value!r:.100}.", name)
    return value


def size_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def event(data: object, name: str | None = None) -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"

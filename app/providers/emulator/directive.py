"""What a single call asks of the emulator: by header, in its metadata, or in the text of its last message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from app.providers.emulator.wire import Call, Refusal, Refused

HEADER = b"x-emulate"
_MARK = "[[emulate"
_KEY_HEADERS = (b"x-request-id", b"idempotency-key")
_decoder = json.JSONDecoder()


def read_directive(call: Call, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Fields of Behaviour, and `key`. The text overrides the metadata, which overrides the header. Raises Refused."""
    directive: dict[str, Any] = {}
    header = headers.get(HEADER)
    if header is not None:
        directive.update(_object(header, "the header x-emulate"))
    asked = call.metadata.get("emulate")
    if asked is not None:
        # Metadata of the OpenAI protocol holds strings only, so the object may come printed.
        directive.update(_object(asked.encode() if isinstance(asked, str) else asked, "metadata.emulate"))
    start = call.last_text.find(_MARK)
    if start >= 0:
        directive.update(_in_text(call.last_text[start + len(_MARK) :]))
    return directive


def request_key(call: Call, headers: Mapping[bytes, bytes], directive: dict[str, Any]) -> str | None:
    """What identifies the call to the caller, if anything does; takes `key` out of the directive."""
    asked = directive.pop("key", None)
    if asked is not None:
        return str(asked)
    for name in _KEY_HEADERS:
        value = headers.get(name)
        if value is not None:
            return value.decode("latin-1")
    named = call.metadata.get("request_id")
    return None if named is None else str(named)


def _object(source: object, place: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(source) if isinstance(source, bytes) else source
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise Refused(Refusal(400, f"{place} must be a JSON object", code="invalid_directive"))
    return value


def _in_text(text: str) -> Mapping[str, Any]:
    try:
        value, _ = _decoder.raw_decode(text.lstrip())
    except ValueError:
        value = None
    return _object(value, "[[emulate ...]] in the last message")

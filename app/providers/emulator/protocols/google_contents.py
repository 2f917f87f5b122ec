"""Reads Google's contents: parts of text, media, function calls and responses. Names may be in either case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from app.providers.emulator.protocols.reading import IMAGE_BYTES, object_of, objects_of, size_of
from app.providers.emulator.wire import bad_request

_UNDERSCORE = re.compile(r"_([a-z])")
_PARTS = frozenset(
    {
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "thought",
        "thoughtSignature",
        "executableCode",
        "codeExecutionResult",
        "videoMetadata",
        "mediaResolution",
        "partMetadata",
    }
)


def named(value: object) -> dict[str, Any]:
    """The object's fields under their JSON names: system_instruction is systemInstruction."""
    return {_UNDERSCORE.sub(lambda found: found[1].upper(), name): item for name, item in object_of(value).items()}


def known(value: object, fields: frozenset[str], place: str) -> dict[str, Any]:
    """Raises Refused."""
    items = named(value)
    unknown = next((name for name in items if name not in fields), None)
    if unknown is not None:
        at = f" at '{place}'" if place else ""
        raise bad_request(f'Invalid JSON payload received. Unknown name "{unknown}"{at}: Cannot find field.')
    return items


def measure(contents: object) -> tuple[int, str]:
    """Bytes, and the text of the last content. Raises Refused."""
    contents = [contents] if isinstance(contents, dict) else contents
    if not isinstance(contents, list) or not contents:
        raise bad_request("* GenerateContentRequest.contents: contents is not specified")
    size, text, calls = 0, "", 0
    for position, content in enumerate(contents):
        role = object_of(content).get("role", "user")
        if role not in ("user", "model", "function"):
            raise bad_request("Please use a valid role: user, model.")
        parts = list(_parts(content, position))
        answers = sum("functionResponse" in part for part in parts)
        if answers != calls and (answers or calls):
            raise bad_request(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        calls = sum("functionCall" in part for part in parts)
        text = "".join(str(part.get("text", "")) for part in parts)
        size += sum(map(_size, parts))
    return size, text


def text_of(content: object) -> str:
    return "".join(str(part.get("text", "")) for part in objects_of(object_of(content).get("parts")))


def _parts(content: object, position: int) -> Iterator[dict[str, Any]]:
    given = objects_of(object_of(content).get("parts"))
    if not given:
        raise bad_request(f"* GenerateContentRequest.contents[{position}].parts: contents.parts must not be empty.")
    for number, part in enumerate(given):
        items = known(part, _PARTS, f"contents[{position}].parts[{number}]")
        if "inlineData" in items:
            blob = named(items["inlineData"])
            if not blob.get("data") or not blob.get("mimeType"):
                raise bad_request("Unable to process input image. Please retry with data and a mimeType.")
        yield items


def _size(part: Mapping[str, Any]) -> int:
    if "text" in part:
        return size_of(str(part["text"]))
    for name in ("functionCall", "functionResponse"):
        if name in part:
            return len(orjson.dumps(part[name]))
    return IMAGE_BYTES

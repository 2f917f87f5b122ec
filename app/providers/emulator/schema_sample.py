"""A value that fits a JSON Schema, the same one every time: for structured output and for a tool's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_DEEPEST = 12
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def sample(schema: object) -> Any:
    """Knows types, enum, const, properties, items, references into the schema, combinations and bounds; no patterns."""
    return _sample(schema, schema if isinstance(schema, Mapping) else {}, 0)


def _sample(schema: object, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return "text" if schema is True else None
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for combination in ("anyOf", "oneOf"):
        if schema.get(combination):
            return _sample(schema[combination][0], root, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            part = _resolve(part["$ref"], root) if "$ref" in part else part
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            merged = {**merged, **part, **({"properties": properties} if properties else {})}
        return _sample(merged, root, depth + 1)
    return _of_type(_type(schema), schema, root, depth)


def _type(schema: Mapping[str, Any]) -> str:
    named = schema.get("type")
    if isinstance(named, list):
        named = next((name for name in named if name != "null"), "null")
    if named is None:
        named = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(named).lower()  # Google writes types in capitals


def _of_type(name: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if name == "object":
        properties = schema.get("properties") or {}
        required = schema.get("required", [])
        wanted = [key for key in properties if depth < _DEEPEST // 2 or key in required]
        return {key: _sample(properties[key], root, depth + 1) for key in wanted}
    if name == "array":
        count = max(int(schema.get("minItems", 0)), 1 if depth < _DEEPEST // 2 else 0)
        return [_sample(schema.get("items", {"type": "string"}), root, depth + 1) for _ in range(count)]
    if name in ("integer", "number"):
        return _number(schema, whole=name == "integer")
    if name == "boolean":
        return True
    if name == "null":
        return None
    text = _FORMATS.get(str(schema.get("format")), "text")
    return text.ljust(int(schema.get("minLength", 0)), "x")[: schema.get("maxLength")]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, high = schema.get("minimum"), schema.get("maximum")
    step = schema.get("multipleOf")
    if schema.get("exclusiveMinimum") is not None:
        low = schema["exclusiveMinimum"] + (step or 1)
    if schema.get("exclusiveMaximum") is not None:
        high = schema["exclusiveMaximum"] - (step or 1)
    value = low if low is not None else 1 if high is None or high >= 1 else high
    if step:
        value = math.ceil(value / step) * step
    return math.ceil(value) if whole else value


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
    return found

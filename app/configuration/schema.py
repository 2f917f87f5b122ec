"""The JSON Schema of configuration files, for editors; `python -m app.configuration.schema --write` publishes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import orjson

from app import money
from app.catalog import validation
from app.catalog.records import UsageUnit
from app.configuration.fields import (
    MODEL_FIELDS,
    PRICE_KEYS,
    PROVIDER_FIELDS,
    REQUIRED,
    Field,
    Form,
)
from app.configuration.values import printable
from app.providers.registry import ADAPTERS
from app.settings import rules

PUBLISHED: Final = Path(__file__).parents[2] / "docs" / "tollgate.schema.json"
_INTERPOLATED: Final = {"$ref": "#/definitions/interpolated"}
_BOUNDS: Final[dict[str, dict[str, Any]]] = {
    "displayName": {"minLength": 1, "maxLength": validation.MAX_DISPLAY_NAME},
    "description": {"minLength": 1, "maxLength": validation.MAX_DESCRIPTION},
    "baseUrl": {"maxLength": validation.MAX_URL},
}


def print_schema() -> str:
    return orjson.dumps(build_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"


def build_schema() -> dict[str, Any]:
    """Draft 7, which editors know best."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Tollgate's configuration",
        "description": "What it names becomes so; what it leaves out stays as it is. Text may hold ${VARIABLE} and "
        "${VARIABLE:-default}; $${ stands for the two characters.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "include": {
                "description": "Files to merge, relative to this one, also by pattern; what this file says holds.",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            },
            "providers": {"type": ["array", "null"], "items": {"$ref": "#/definitions/provider"}},
            "settings": {
                "description": "A value for each key, any JSON. infra_model_<task> names a model: openai:gpt-4o-mini.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": f"^[a-z][a-z0-9_.-]{{0,{rules.MAX_KEY - 1}}}$"},
            },
        },
        "definitions": {
            "interpolated": {"type": "string", "pattern": r"\$\{"},
            "provider": _object(
                "name", _name("A short name, for life: models are referred to by it."), PROVIDER_FIELDS, _models()
            ),
            "model": _object("modelId", _model_id(), MODEL_FIELDS, _prices()),
            "decimal": {
                "description": f"Per 1,000,000 units, at most {money.PRICE_SCALE} decimals. Null: not known.",
                "anyOf": [
                    {"type": "number", "minimum": 0, "exclusiveMaximum": int(money.MAX_PRICE)},
                    {"type": "string", "pattern": rf"^\d+(\.\d{{1,{money.PRICE_SCALE}}})?$"},
                    {"type": "null"},
                    _INTERPOLATED,
                ],
            },
            "price": {
                "anyOf": [
                    {"$ref": "#/definitions/decimal"},
                    {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/datedPrice"}},
                ]
            },
            "datedPrice": {
                "type": "object",
                "additionalProperties": False,
                "required": ["price"],
                "properties": {
                    "price": {"$ref": "#/definitions/decimal"},
                    "effectiveAt": {
                        "description": "2026-12-01T00:00:00Z, or a date in UTC. Left out: before the first dated one.",
                        "type": "string",
                    },
                },
            },
        },
    }


def _object(key: str, key_schema: dict[str, Any], fields: tuple[Field, ...], last: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {key: key_schema}
    for field in fields:
        group, _, name = field.path.partition(".")
        if name:
            parent = properties.setdefault(
                group, {"type": ["object", "null"], "additionalProperties": False, "properties": {}}
            )
            parent["properties"][name] = _field(field)
        else:
            properties[group] = _field(field)
    return {"type": "object", "additionalProperties": False, "required": [key], "properties": properties | last}


def _field(field: Field) -> dict[str, Any]:
    forms = [_form(field), *([{"type": "null"}] if field.nullable else []), _INTERPOLATED]
    # An array of words takes variables in its items, and text may be anything.
    kept = [form for form in forms if form is not _INTERPOLATED or field.form not in (Form.TEXT, Form.WORDS)]
    default = {} if field.default is REQUIRED else {"default": printable(field.default)}
    shape = kept[0] if len(kept) == 1 else {"anyOf": kept}
    return {"description": field.about, **default, **shape}


def _form(field: Field) -> dict[str, Any]:
    match field.form:
        case Form.TEXT if field.name == "adapter":
            return {"anyOf": [{"enum": sorted(ADAPTERS)}, _INTERPOLATED]}
        case Form.TEXT:
            return {"type": "string", **_BOUNDS.get(field.name, {})}
        case Form.INTEGER:
            return {"type": "integer", "minimum": 1, "maximum": validation.MAX_COUNT}
        case Form.NUMBER:
            return {"type": "number", "exclusiveMinimum": 0, "maximum": validation.MAX_TIMEOUT_SECONDS}
        case Form.BOOLEAN:
            return {"type": "boolean"}
        case Form.WORD:
            assert field.words is not None
            return {"enum": list(field.words.__members__)}
        case Form.WORDS:
            return {"type": "array", "maxItems": validation.MAX_CAPABILITIES, "items": {"type": "string"}}
        case Form.JSON:
            return {"type": "array", "items": {"type": "object", "required": ["name"]}}


def _name(about: str) -> dict[str, Any]:
    pattern = {"type": "string", "pattern": f"^[a-z0-9][a-z0-9._-]{{0,{validation.MAX_NAME - 1}}}$"}
    return {"description": about, "anyOf": [pattern, _INTERPOLATED]}


def _model_id() -> dict[str, Any]:
    return {
        "description": "What the provider calls it.",
        "type": ["string", "number"],
        "maxLength": validation.MAX_MODEL_ID,
    }


def _models() -> dict[str, Any]:
    return {"models": {"type": ["array", "null"], "items": {"$ref": "#/definitions/model"}}}


def _prices() -> dict[str, Any]:
    units: dict[str, UsageUnit] = dict(PRICE_KEYS)
    return {
        "prices": {
            "description": "US dollars per 1,000,000 of each unit.",
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {key: {"$ref": "#/definitions/price"} for key in units},
        }
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        PUBLISHED.write_text(print_schema())
    else:
        sys.stdout.write(print_schema())

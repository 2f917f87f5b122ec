"""What clients of OpenAI's endpoints send alike: images, tools, formats, and the parameters beside them."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

from msgspec import Struct

from app.errors import ValidationError
from app.providers.bodies import convert
from app.providers.messages import FormatKind, Image, ResponseFormat

Kind = TypeVar("Kind")

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class ClientSchema(Struct, forbid_unknown_fields=True):
    """The schema of a structured answer."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


def image_of(url: str, detail: str | None, field: str) -> Image:
    """By its URL, or what a data URL holds. Raises ValidationError."""
    if detail not in (None, "auto", "low", "high", "original"):
        raise ValidationError(f"{field}.detail", detail, "auto, low, high or original")
    if not url.startswith("data:"):
        if not url.startswith(("https://", "http://")):
            raise ValidationError(field, url[:100], "an http, https or data URL")
        return Image(url=url, detail=detail)
    head, _, data = url.partition(",")
    media_type = head[5:].removesuffix(";base64")
    if not head.endswith(";base64") or "/" not in media_type or not _BASE64.fullmatch(data):
        raise ValidationError(field, url[:100], "a data URL of the form data:image/png;base64,...")
    return Image(data=data, media_type=media_type, detail=detail)


def format_of(kind: Any, schema: Any, field: str, schema_field: str) -> ResponseFormat:
    """`schema` is what stands beside the kind json_schema, in `schema_field`. Raises ValidationError."""
    if not isinstance(kind, str) or kind not in {known.value for known in FormatKind}:
        raise ValidationError(f"{field}.type", kind, "text, json_object or json_schema")
    if kind != FormatKind.JSON_SCHEMA:
        return ResponseFormat(FormatKind(kind))
    wanted = in_field(schema_field, schema, ClientSchema)
    if wanted.schema is None:
        raise ValidationError(f"{schema_field}.schema", None, "given")
    return ResponseFormat(FormatKind.JSON_SCHEMA, wanted.name, wanted.schema, wanted.strict, wanted.description)


def in_field(field: str, value: Any, kind: type[Kind]) -> Kind:
    """Into a msgspec type. Raises ValidationError with the whole path, as the client knows it."""
    try:
        return convert(value, kind)
    except ValidationError as error:
        inner = "" if error.field == "body" else error.field
        separator = "." if inner and not inner.startswith("[") else ""
        raise ValidationError(f"{field}{separator}{inner}", error.value, error.bound) from None


def take_text(body: dict[str, Any], name: str) -> str:
    """A text that must be there and not empty."""
    value = body.pop(name, None)
    if not isinstance(value, str) or not value:
        raise ValidationError(name, value, "a text that is not empty")
    return value


def take_flag(body: dict[str, Any], name: str) -> bool:
    value = body.pop(name, None)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ValidationError(name, value, "true or false")
    return value


def take_metadata(body: dict[str, Any]) -> dict[str, Any]:
    value = body.pop("metadata", None)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValidationError("metadata", value, "an object")
    return value


def parameters_of(body: dict[str, Any]) -> dict[str, Any]:
    """What is left of the body; null is a parameter that was not given."""
    return {name: value for name, value in body.items() if value is not None}

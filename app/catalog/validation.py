"""The bounds of the catalog's fields. Each check answers the value to store, or raises ValidationError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from app import money
from app.catalog.parameters import parse_rules
from app.catalog.records import PriceInput
from app.errors import ValidationError

MAX_COUNT: Final = 2**31 - 1
"""The largest INTEGER of the database."""
MAX_NAME: Final = 64
MAX_MODEL_ID: Final = 200
MAX_DISPLAY_NAME: Final = 200
MAX_DESCRIPTION: Final = 10_000
MAX_URL: Final = 2_000
MAX_CAPABILITIES: Final = 50
MAX_TIMEOUT_SECONDS: Final = 86_400

_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")
_NAME_BOUND: Final = f'1 to {MAX_NAME} of a-z, 0-9, ".", "_" and "-", beginning with a letter or digit'
_MODEL_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_MODEL_ID}}}")
_MODEL_ID_BOUND: Final = f"1 to {MAX_MODEL_ID} printable ASCII characters without spaces"
_URL: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_URL}}}")
_CAPABILITY: Final = re.compile(r"[a-z][a-z0-9_-]{0,49}")
# What PostgreSQL cannot store, or what would garble a terminal: control characters but tab and newlines; surrogates.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def name(value: str, field: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValidationError(field, value, _NAME_BOUND)
    return value


def model_id(value: str, field: str = "modelId") -> str:
    if not _MODEL_ID.fullmatch(value):
        raise ValidationError(field, value, _MODEL_ID_BOUND)
    return value


def text(value: str, field: str, longest: int) -> str:
    """Not blank; without surrounding spaces when stored."""
    stripped = value.strip()
    if not 1 <= len(stripped) <= longest or _UNPRINTABLE.search(stripped):
        raise ValidationError(field, value, f"1 to {longest} printable characters")
    return stripped


def display_name(value: str) -> str:
    return text(value, "displayName", MAX_DISPLAY_NAME)


def description(value: str | None) -> str | None:
    return None if value is None else text(value, "description", MAX_DESCRIPTION)


def count(value: int, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise ValidationError(field, value, f"an integer from 1 to {MAX_COUNT}")
    return value


def optional_count(value: int | None, field: str) -> int | None:
    return None if value is None else count(value, field)


def optional_price(value: PriceInput | None, field: str) -> Decimal | None:
    return None if value is None else money.parse_price(value, field)


def optional_timeout(value: float | None, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise ValidationError(field, value, f"a number of seconds above 0, at most {MAX_TIMEOUT_SECONDS}")
    return float(value)


def parameter_rules(value: Any) -> Any:
    if value is not None:
        parse_rules(value)
    return value


def capabilities(values: Sequence[str]) -> list[str]:
    """Without repetitions, in the order given."""
    if len(values) > MAX_CAPABILITIES:
        raise ValidationError("capabilities", list(values), f"at most {MAX_CAPABILITIES} words")
    for value in values:
        if not _CAPABILITY.fullmatch(value):
            raise ValidationError("capabilities", value, 'words of 1 to 50 of a-z, 0-9, "_" and "-"')
    return list(dict.fromkeys(values))


def base_url(value: str | None) -> str | None:
    """Without a trailing slash. Credentials in it are refused, and not repeated in the error."""
    if value is None:
        return None
    bound = f"an http or https URL of at most {MAX_URL} characters, without credentials, query or fragment"
    shown = "a URL with credentials" if "@" in value else value
    if not _URL.fullmatch(value):
        raise ValidationError("baseUrl", shown, bound)
    try:
        parts = urlsplit(value)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed or parts.scheme not in ("http", "https") or "@" in parts.netloc or "?" in value or "#" in value:
        raise ValidationError("baseUrl", shown, bound)
    return value.rstrip("/")

"""When two values are the same for the database, and how they are printed."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson

from app.money import print_decimal


def printable(value: Any) -> Any:
    """JSON's own types, with decimals as plain strings."""
    if isinstance(value, Decimal):
        return print_decimal(value)
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def canonical(value: Any) -> bytes:
    """Equal where the database would hold the same: 1.0 is 1 there, true is not."""
    return orjson.dumps(_plain(printable(value)), option=orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        # By the digits that are written, which are what the database keeps.
        return repr(int(Decimal(repr(value)))) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        return "'" + value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value

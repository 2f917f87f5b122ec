"""The scalars of the API: exact decimals as strings, times with an offset, JSON values."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NewType

import strawberry
from graphql import (
    BooleanValueNode,
    EnumValueNode,
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)
from strawberry.types.scalar import ScalarDefinition

from app.money import print_decimal

JSON = NewType("JSON", object)

_MAX_DIGITS = 60
_MAX_JSON_DEPTH = 100
_INT64 = 2**63


def parse_decimal(value: object) -> Decimal:
    """Reads a string or an int. A float is refused: 0.1 would not be exact."""
    if isinstance(value, float):
        raise GraphQLError(f'Decimal must be a string ("2.5") or an integer, not the float {value!r}: it is not exact')
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise GraphQLError('Decimal must be a string ("2.5") or an integer')
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise GraphQLError(f"Decimal cannot be read from {_shorten(value)}") from None
    if not number.is_finite() or len(number.as_tuple().digits) > _MAX_DIGITS or abs(number.adjusted()) > _MAX_DIGITS:
        raise GraphQLError(f"Decimal must be finite and of at most {_MAX_DIGITS} digits, not {_shorten(value)}")
    return number


def _decimal_literal(node: ValueNode, _variables: dict[str, Any] | None = None) -> Decimal:
    if isinstance(node, FloatValueNode):
        raise GraphQLError(f'Decimal must be a string ("{node.value}") or an integer, not a float literal', node)
    if isinstance(node, (StringValueNode, IntValueNode)):
        return parse_decimal(node.value)
    raise GraphQLError('Decimal must be a string ("2.5") or an integer', node)


def print_datetime(value: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond or, where needed, to the microsecond: "2026-01-31T12:00:00.000Z"."""
    timespec = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def parse_datetime(value: object) -> datetime:
    """Reads ISO 8601 with "Z" or an offset."""
    if not isinstance(value, str):
        raise GraphQLError('DateTime must be an ISO 8601 string ("2026-01-31T12:00:00Z")')
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise GraphQLError(f'DateTime must end in "Z" or an offset, not {_shorten(value)}')
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError(f'DateTime must be ISO 8601 ("2026-01-31T12:00:00Z"), not {_shorten(value)}') from None


def parse_json(value: object) -> object:
    """Any JSON value that a database can hold: no NUL in strings, integers of 64 bits, finite numbers."""
    _check_json(value, 0)
    return value


def _check_json(value: object, depth: int) -> None:
    if depth > _MAX_JSON_DEPTH:
        raise GraphQLError(f"JSON is nested more than {_MAX_JSON_DEPTH} deep")
    if isinstance(value, str):
        if "\0" in value:
            raise GraphQLError("JSON strings cannot hold U+0000")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise GraphQLError("JSON integers have at most 64 bits; send a larger number as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise GraphQLError("JSON numbers are finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_json(key, depth + 1)
            _check_json(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_json(item, depth + 1)


def _json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> object:
    return parse_json(_literal(node, variables or {}))


def _literal(node: ValueNode, variables: dict[str, Any]) -> object:
    value: object = None
    match node:
        case StringValueNode() | BooleanValueNode() | EnumValueNode():
            value = node.value
        case IntValueNode():
            value = int(node.value) if len(node.value) <= 20 else _INT64
        case FloatValueNode():
            value = float(node.value)
        case ListValueNode():
            value = [_literal(item, variables) for item in node.values]
        case ObjectValueNode():
            value = {field.name.value: _literal(field.value, variables) for field in node.fields}
        case VariableNode():
            value = variables.get(node.name.value)
        case NullValueNode():
            pass
    return value


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


SCALARS: dict[object, ScalarDefinition] = {
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal as a plain string ("2.5", "0.00875"); integers are accepted, floats are not.',
        serialize=print_decimal,
        parse_value=parse_decimal,
        parse_literal=_decimal_literal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description='ISO 8601 with "Z" or an offset; answered in UTC.',
        serialize=print_datetime,
        parse_value=parse_datetime,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value.",
        serialize=lambda value: value,
        parse_value=parse_json,
        parse_literal=_json_literal,
    ),
}
"""For StrawberryConfig.scalar_map."""

"""How every mutation runs: the right to it first, then its service, then what it may read of its own writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import strawberry

from app.access.records import Permission
from app.api.context import Info
from app.api.errors import typed_error
from app.errors import RequestRefused, ValidationError


async def change(info: Info, permission: Permission, call: Callable[[], Awaitable[object]]) -> object:
    """What `call` answers, or the typed error for its refusal. Without `permission` nothing is called."""
    try:
        info.context.require(permission)
        result = await call()
    except RequestRefused as refused:
        shown = typed_error(refused)
        if shown is None:
            raise
        return shown
    info.context.refresh_snapshot()
    return result


def given(input: object, *, nullable: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    """The fields of a GraphQL input that the caller sent. Raises ValidationError for a null that is not `nullable`."""
    sent: dict[str, Any] = {}
    for field in dataclasses.fields(input):  # type: ignore[arg-type]  # strawberry inputs are dataclasses
        value = getattr(input, field.name)
        if value is strawberry.UNSET:
            continue
        if value is None and field.name not in nullable:
            name = _camel_case(field.name)
            raise ValidationError(name, None, "left out, or not null", path=(*filter(None, (prefix,)), name))
        sent[field.name] = value
    return sent


def or_none(value: Any) -> Any:
    """An optional argument: left out and null are the same."""
    return None if value is strawberry.UNSET else value


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)

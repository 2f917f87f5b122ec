"""Operations as steps: generators of calls to make, which a driver makes with or without asyncio.

An operation is so written once. A step is a Call, answered with its Reply or with the error that there was none, or a
Pause.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from tollgate.errors import DatabaseUnavailable, RequestRefused, ServerUnreachable, TollgateError, error_of

Result = TypeVar("Result")

_REFUSALS: Final = frozenset(
    {"ValidationError", "NotFound", "Conflict", "ModelUnavailable", "Forbidden", "PriceUnknown", "Unauthenticated"}
)
_BY_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    413: "PAYLOAD_TOO_LARGE",
    429: "RATE_LIMITED",
    503: "PROVIDER_UNAVAILABLE",
    504: "TIMEOUT",
}
_PAUSES: Final = (0.1, 0.3, 1.0, 3.0)
"""Seconds, before what may be sent again is sent again."""
ERROR_FRAGMENT: Final = "... on Error { code message path }"


@dataclass(frozen=True, slots=True)
class Call:
    """A POST of JSON; of a form where there are `files`, each a name and a content.

    `wait_seconds`: how much longer than usual the answer may take to begin.
    """

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    files: Mapping[str, tuple[str, bytes]] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Steps = Generator[Call | Pause, Reply | None, Result]


def post(call: Call) -> Steps[Reply]:
    reply = yield call
    assert reply is not None
    return reply


def graphql(query: str, variables: Mapping[str, Any] | None = None) -> Steps[dict[str, Any]]:
    """The data of an operation. Raises the error of one that failed."""
    reply = yield from post(Call("/graphql", {"query": query, "variables": dict(variables or {})}))
    body = json_of(reply)
    for error in body.get("errors") or ():
        extensions = error.get("extensions") or {}
        raise error_of(
            str(extensions.get("code", RequestRefused.code)),
            str(error.get("message", "")),
            path=[str(part) for part in extensions.get("path") or ()],
            http_status=reply.status,
            alternatives=extensions.get("alternatives") or (),
        )
    if not isinstance(body.get("data"), dict):
        raise ServerUnreachable(f"the answer is none of Tollgate's (status {reply.status})", http_status=reply.status)
    data: dict[str, Any] = body["data"]
    return data


def graphql_patiently(query: str, variables: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """`graphql` of what may be sent again, such as a query: a server that starts anew is waited for."""
    for seconds in _PAUSES:
        try:
            return (yield from graphql(query, variables))
        except (ServerUnreachable, DatabaseUnavailable):
            yield Pause(seconds)
    return (yield from graphql(query, variables))


def accepted(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result of a mutation. Raises its refusal."""
    if result["__typename"] in _REFUSALS:
        raise error_of(
            str(result["code"]),
            str(result["message"]),
            path=result["path"],
            alternatives=result.get("alternatives", ()),
        )
    return result


def json_of(reply: Reply) -> dict[str, Any]:
    """Raises ServerUnreachable where the body is no JSON object: then something else answered."""
    try:
        body = json.loads(reply.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServerUnreachable(f"the answer is no JSON object (status {reply.status})", http_status=reply.status)
    return body


def gateway_error(reply: Reply) -> TollgateError:
    """The error that the gateway answered with."""
    try:
        error = json_of(reply).get("error")
    except ServerUnreachable as unreadable:
        return unreadable
    body = error if isinstance(error, dict) else {}
    retry_after = reply.headers.get("retry-after", "")
    return error_in(
        body,
        code=reply.headers.get("x-tollgate-error"),
        request_id=reply.headers.get("x-tollgate-request-id"),
        http_status=reply.status,
        retry_after_seconds=float(retry_after) if retry_after.isdecimal() else None,
        alternatives=tuple(unquote(ref) for ref in reply.headers.get("x-tollgate-alternatives", "").split(",") if ref),
    )


def error_in(
    body: Mapping[str, Any],
    *,
    code: str | None = None,
    request_id: str | None = None,
    http_status: int | None = None,
    retry_after_seconds: float | None = None,
    alternatives: tuple[str, ...] = (),
) -> TollgateError:
    """Of an error object as OpenAI writes it: `message`, `param`, `code`."""
    own = body.get("code")
    return error_of(
        code or (own.upper() if isinstance(own, str) else _BY_STATUS.get(http_status or 0, TollgateError.code)),
        str(body.get("message") or f"status {http_status}"),
        path=str(body["param"]).split(".") if body.get("param") else (),
        request_id=request_id,
        http_status=http_status,
        retry_after_seconds=retry_after_seconds,
        alternatives=alternatives,
    )


def decimal(text: Any) -> Decimal | None:
    return None if text is None else Decimal(str(text))

"""Errors as GraphQL shows them: typed ones in the result unions, coded ones in `errors`, surprises masked."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import strawberry
import structlog
from graphql import GraphQLError
from strawberry.exceptions import StrawberryInputCoercionError

from app import errors

_log = structlog.get_logger(__name__)


@strawberry.interface(description="Why a mutation changed nothing.")
class Error:
    code: str = strawberry.field(description="Stable and machine-readable.")
    message: str
    path: list[str] = strawberry.field(description="The offending input, outermost first; empty where there is none.")


@strawberry.type(description="A field's value is out of bounds; the message names field, value and bound.")
class ValidationError(Error):
    pass


@strawberry.type(description="What the mutation refers to does not exist.")
class NotFound(Error):
    pass


@strawberry.type(description="What is there already forbids it.")
class Conflict(Error):
    pass


@strawberry.type(description="The token's role does not allow it.")
class Forbidden(Error):
    pass


@strawberry.type(description="The model is deprecated, inactive, or its provider is disabled.")
class ModelUnavailable(Error):
    alternatives: list[str] = strawberry.field(description='Usable models, best first ("openai:gpt-4o").')


def typed_error(error: errors.RequestRefused) -> Error | None:
    """The result union's member for a refusal; None for one that no mutation declares."""
    path = list(error.path)
    if isinstance(error, errors.ModelUnavailable):
        return ModelUnavailable(
            code=error.code, message=error.message, path=path, alternatives=list(error.alternatives)
        )
    for raised, shown in (
        (errors.ValidationError, ValidationError),
        (errors.NotFound, NotFound),
        (errors.Conflict, Conflict),
        (errors.Forbidden, Forbidden),
    ):
        if isinstance(error, raised):
            return shown(code=error.code, message=error.message, path=path)
    return None


def format_errors(found: Iterable[GraphQLError]) -> list[dict[str, Any]]:
    """The `errors` entry of a response. Whatever was not raised on purpose is logged and masked."""
    return [_format(error) for error in found]


def request_error(message: str, code: str = "BAD_REQUEST") -> GraphQLError:
    """An error of the request itself, before anything was run."""
    return GraphQLError(message, extensions={"code": code})


def _format(error: GraphQLError) -> dict[str, Any]:
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    formatted: dict[str, Any] = dict(error.formatted)
    if isinstance(cause, errors.RequestRefused):
        extensions: dict[str, Any] = {"code": cause.code}
        if cause.path:
            extensions["path"] = list(cause.path)
        if isinstance(cause, errors.ModelUnavailable):
            extensions["alternatives"] = list(cause.alternatives)
        return {**formatted, "message": cause.message, "extensions": extensions}
    if cause is None or isinstance(cause, (GraphQLError, StrawberryInputCoercionError)):
        return formatted
    return {**formatted, **mask(cause)}


def mask(cause: BaseException) -> dict[str, Any]:
    """Logs an error that nobody foresaw, and answers what the caller may know of it: an id to ask the operator with."""
    error_id = secrets.token_hex(8)
    _log.error("internal_error", error_id=error_id, exc_info=cause)
    return {"message": f"internal error {error_id}", "extensions": {"code": "INTERNAL", "id": error_id}}

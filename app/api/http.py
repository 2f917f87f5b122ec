"""GraphQL over HTTP as its specification has it (graphql.github.io/graphql-over-http), straight on ASGI."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from app.access.records import Identity
from app.api.asgi import (
    Answer,
    BodyTooLarge,
    ClientGone,
    answer,
    authenticate,
    header,
    read_body,
    refusal,
    unauthenticated,
)
from app.api.context import RequestContext
from app.api.engine import Engine, GraphQLParams, MethodNotAllowed, Outcome
from app.api.errors import mask
from app.api.graphiql import GRAPHIQL
from app.api.media_types import GRAPHQL_RESPONSE, is_json_in_utf8, negotiate, prefers_html
from app.api.metrics import Metrics
from app.api.response_cache import Key, ResponseCache
from app.api.services import ApiServices
from app.errors import DatabaseUnavailable, Unauthenticated

_log = structlog.get_logger(__name__)


class MalformedRequest(Exception):
    """The HTTP request is not a well-formed GraphQL request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class GraphQLHttp:
    """Answers a query of the catalog from the response cache before it reads as much as its JSON."""

    def __init__(self, engine: Engine, services: ApiServices, metrics: Metrics) -> None:
        self._engine = engine
        self._services = services
        self._metrics = metrics
        self._max_body_bytes = services.config.max_body_bytes
        self._responses = ResponseCache()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope, receive)
        except ClientGone:
            return
        except Unauthenticated as error:
            response = unauthenticated(error.message, has_token=bool(header(scope, b"authorization")))
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", error=error.message)
            response = refusal(503, error.message, error.code)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, and masked
            response = answer(500, orjson.dumps({"errors": [mask(error)]}), "application/json; charset=utf-8")
        await response.send(send)

    async def _respond(self, scope: Scope, receive: Receive) -> Answer:
        authorization = accept = content_type = content_length = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"accept":
                accept = accept + b", " + value if accept else value
            elif name == b"content-type":
                content_type = value
            elif name == b"content-length":
                content_length = value
        method: str = scope["method"]
        if method == "GET" and prefers_html(accept.decode("latin-1")) and b"query=" not in scope["query_string"]:
            return GRAPHIQL
        identity = await authenticate(self._services.authenticator, authorization)
        if method == "POST":
            try:
                payload = await read_body(receive, content_length, self._max_body_bytes)
            except BodyTooLarge:
                return self._too_large()
        else:
            payload = scope["query_string"]
        key: Key = (method, payload, accept, content_type, identity.workspace_id, identity.role)
        cached = self._responses.get(key, self._services.snapshots.current.revision)
        if cached is not None:
            self._metrics.cached_responses += 1
            return cached
        return await self._execute(key, identity, method, payload, accept, content_type)

    async def _execute(  # one parameter per part of the request
        self, key: Key, identity: Identity, method: str, payload: bytes, accept: bytes, content_type: bytes
    ) -> Answer:
        media_type = negotiate(accept.decode("latin-1"))
        if media_type is None:
            return refusal(406, f"this answers {GRAPHQL_RESPONSE} or application/json", "NOT_ACCEPTABLE")
        try:
            if method == "POST":
                params = _params_of_body(payload, content_type.decode("latin-1"))
            elif method == "GET":
                params = _params_of_query_string(payload)
            else:
                return refusal(
                    405, f"{method} is not allowed", "METHOD_NOT_ALLOWED", headers=[(b"allow", b"GET, POST")]
                )
        except MalformedRequest as problem:
            return refusal(problem.status, problem.message, "BAD_REQUEST", media_type=media_type)
        context = RequestContext(self._services, identity, self._services.snapshots.current)
        try:
            with self._metrics.graphql_seconds.time():
                outcome = await self._engine.execute(params, context, read_only=method == "GET")
        except MethodNotAllowed:
            return refusal(
                405,
                "only queries run over GET; send a mutation by POST",
                "METHOD_NOT_ALLOWED",
                media_type=media_type,
                headers=[(b"allow", b"POST")],
            )
        self._metrics.count(outcome)
        response = render(outcome, media_type)
        if outcome.snapshot_revision is not None:
            self._responses.put(key, outcome.snapshot_revision, response)
        return response

    def _too_large(self) -> Answer:
        limit = self._max_body_bytes
        return refusal(
            413,
            f"the request body is above the limit of {limit} bytes",
            "LIMIT_EXCEEDED",
            extensions={"limit": "body bytes", "maximum": limit},
            headers=[(b"connection", b"close")],
        )


def render(outcome: Outcome, media_type: str) -> Answer:
    """A request error is 400, but 200 for clients of application/json, as the specification has it."""
    status = 400 if outcome.is_request_error and media_type == GRAPHQL_RESPONSE else 200
    headers = []
    if outcome.snapshot_revision is not None:
        headers.append((b"tollgate-catalog-revision", str(outcome.snapshot_revision).encode()))
    body = orjson.dumps(outcome.body, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS)
    return answer(status, body, f"{media_type}; charset=utf-8", headers)


def _params_of_body(body: bytes, content_type: str) -> GraphQLParams:
    if not is_json_in_utf8(content_type):
        shown = repr(content_type) if content_type else "missing"
        raise MalformedRequest(415, f"Content-Type must be application/json in UTF-8; it is {shown}")
    if not body:
        raise MalformedRequest(400, "the request has no body")
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(400, f"the body is not JSON: {error}") from None
    if isinstance(data, list):
        raise MalformedRequest(400, "batches are not served: send one operation per request")
    if not isinstance(data, dict):
        raise MalformedRequest(400, "the body must be a JSON object")
    return parse_params(data)


def _params_of_query_string(query_string: bytes) -> GraphQLParams:
    data: dict[str, Any] = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    for name in ("variables", "extensions"):
        text = data.pop(name, "")
        if text:
            try:
                data[name] = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise MalformedRequest(400, f"{name} is not JSON: {error}") from None
    data["operationName"] = data.get("operationName") or None
    return parse_params(data)


def parse_params(data: dict[str, Any]) -> GraphQLParams:
    """Raises MalformedRequest where a parameter is of the wrong type."""
    query = data.get("query")
    if not isinstance(query, str) or not query:
        raise MalformedRequest(400, "query must be a string that is not empty")
    operation_name = data.get("operationName")
    if operation_name is not None and not isinstance(operation_name, str):
        raise MalformedRequest(400, "operationName must be a string or null")
    variables = data.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise MalformedRequest(400, "variables must be an object or null")
    extensions = data.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise MalformedRequest(400, "extensions must be an object or null")
    return GraphQLParams(query, variables or {}, operation_name)

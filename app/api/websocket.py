"""GraphQL over websocket by the graphql-transport-ws protocol, authenticated like HTTP.

The token comes in the Authorization header of the upgrade or, as browsers cannot set one, in the payload of
connection_init: {"Authorization": "Bearer ..."}. It is checked again before each operation and each result, and
whenever the tokens change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, cast

import orjson
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message, SubscribeMessage
from strawberry.types.unset import UNSET, UnsetType

from app.access.records import Identity
from app.api.asgi import authenticate, unauthenticated
from app.api.context import RequestContext
from app.api.engine import Engine
from app.api.errors import mask
from app.api.http import MalformedRequest, parse_params
from app.api.services import ApiServices
from app.errors import DatabaseUnavailable, Unauthenticated

PROTOCOL = "graphql-transport-ws"
_INIT_TIMEOUT = timedelta(seconds=10)
_MAX_OPERATIONS = 100

_log = structlog.get_logger(__name__)


class GraphQLWebSocket:
    def __init__(self, engine: Engine, services: ApiServices) -> None:
        self._engine = engine
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        authorization = websocket.headers.get("authorization", "")
        if authorization:
            try:
                await authenticate(self._services.authenticator, authorization.encode("latin-1"))
            except Unauthenticated as error:
                await _deny(websocket, error)
                return
        if PROTOCOL not in scope["subprotocols"]:
            await websocket.close(1002, f"the subprotocol must be {PROTOCOL}")
            return
        await websocket.accept(subprotocol=PROTOCOL)
        connection = _Connection(websocket, self._services, authorization, self._services.config.max_body_bytes)
        revoking = asyncio.create_task(connection.close_when_revoked(), name="websocket revocation")
        try:
            await _Handler(self._engine, connection).handle()
        finally:
            revoking.cancel()
            await asyncio.gather(revoking, return_exceptions=True)


async def _deny(websocket: WebSocket, error: Unauthenticated) -> None:
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(4403)
        return
    denial = unauthenticated(error.message, has_token=True)
    headers = {key.decode(): value.decode() for key, value in denial.start["headers"]}
    await websocket.send_denial_response(Response(denial.body["body"], denial.start["status"], headers))


class _Connection:
    """What strawberry's handler calls its view, its websocket and its context, in one."""

    def __init__(self, websocket: WebSocket, services: ApiServices, authorization: str, max_bytes: int) -> None:
        self.services = services
        self.connection_params: dict[str, object] | None = None
        self._websocket = websocket
        self._authorization = authorization
        self._max_bytes = max_bytes

    async def identity(self) -> Identity:
        """Raises Unauthenticated: also where the token has expired or was revoked since."""
        return await authenticate(self.services.authenticator, self._authorization.encode("latin-1", "replace"))

    async def close_when_revoked(self) -> None:
        """Returns when the connection has been closed since its token, good until then, was revoked."""
        changed = asyncio.Event()
        forget = self.services.authenticator.on_change(changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                if self._authorization:
                    await self.identity()
        except Unauthenticated as error:
            await self.close(4403, error.message)
        finally:
            forget()

    async def on_ws_connect(self, _context: object) -> UnsetType:
        if not self._authorization:
            given = {key.lower(): value for key, value in (self.connection_params or {}).items()}
            self._authorization = str(given.get("authorization", ""))
        try:
            await self.identity()
        except (Unauthenticated, DatabaseUnavailable):
            raise ConnectionRejectionError from None
        return cast(UnsetType, UNSET)

    async def iter_json(self) -> AsyncGenerator[object, None]:
        while self._websocket.application_state is not WebSocketState.DISCONNECTED:
            try:
                received = await self._websocket.receive()
            except RuntimeError:  # closed by this side meanwhile
                return
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            if text is None:
                await self.close(4400, "messages must be text")
                return
            if len(text) > self._max_bytes:
                await self.close(1009, f"the message is above the limit of {self._max_bytes} bytes")
                return
            try:
                message = orjson.loads(text)
            except orjson.JSONDecodeError:
                message = None
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                await self.close(4400, "a message must be a JSON object with a type")
                return
            yield message

    async def send_json(self, message: Mapping[str, object]) -> None:
        try:
            await self._websocket.send_text(orjson.dumps(message).decode())
        except (WebSocketDisconnect, RuntimeError) as error:
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        with suppress(RuntimeError):  # it is closed already
            await self._websocket.close(code, reason[:120])


class _Handler(BaseGraphQLTransportWSHandler[Any, None]):
    """Strawberry's protocol states; operations run in the engine, under the same guards and masks as over HTTP."""

    def __init__(self, engine: Engine, connection: _Connection) -> None:
        super().__init__(
            view=cast(Any, connection),
            websocket=cast(Any, connection),
            context=connection,
            root_value=None,
            schema=cast(Any, None),
            connection_init_wait_timeout=_INIT_TIMEOUT,
            max_subscriptions_per_connection=_MAX_OPERATIONS,
        )
        self._engine = engine
        self._connection = connection

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        payload: object = message.get("payload")
        if not isinstance(message.get("id"), str) or not isinstance(payload, dict):
            await self.handle_invalid_message("subscribe needs an id and a payload")
            return
        try:
            parse_params(payload)
        except MalformedRequest as problem:
            await self.handle_invalid_message(problem.message)
            return
        await super().handle_subscribe(message)

    async def run_operation(self, operation: Operation[Any, None]) -> None:
        try:
            await self._run(operation)
        except Unauthenticated as error:
            await self._connection.close(4403, error.message)
        except (WebSocketDisconnected, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the outermost handler of an operation: logged, and masked
            await self._send(operation, "error", [mask(error)])

    async def _run(self, operation: Operation[Any, None]) -> None:
        services = self._connection.services
        params = parse_params(
            {"query": operation.query, "variables": operation.variables, "operationName": operation.operation_name}
        )
        context = RequestContext(services, await self._connection.identity(), services.snapshots.current)
        async with aclosing(self._engine.stream(params, context)) as outcomes:
            async for outcome in outcomes:
                await self._connection.identity()
                if outcome.is_request_error:
                    await self._send(operation, "error", outcome.body["errors"])
                    return
                await self._send(operation, "next", outcome.body)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def _send(self, operation: Operation[Any, None], type_: str, payload: object) -> None:
        with suppress(KeyError):  # the client completed the operation meanwhile
            await operation.send_operation_message(
                cast(Message, {"id": operation.id, "type": type_, "payload": payload})
            )

"""The HTTP process: a Starlette application, with GraphQL straight on ASGI in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.asgi import authenticate, header, refusal, unauthenticated
from app.api.engine import Engine
from app.api.http import GraphQLHttp
from app.api.metrics import Metrics
from app.api.services import ApiServices
from app.api.websocket import GraphQLWebSocket
from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable, Unauthenticated
from app.gateway.routes import Gateway
from app.schema import RECORD_TYPES, schema

OpenServices = Callable[[], AbstractAsyncContextManager[ApiServices]]
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})

_log = structlog.get_logger(__name__)


class Application:
    """The ASGI application. `open_services` is entered at startup and left at shutdown."""

    def __init__(self, open_services: OpenServices, routes: Sequence[BaseRoute] = ()) -> None:
        self._open_services = open_services
        self._services: ApiServices | None = None
        self._http: ASGIApp | None = None
        self._websocket: ASGIApp | None = None
        self._gateway: ASGIApp | None = None
        self.metrics = Metrics()
        self._starlette = Starlette(
            routes=[
                Route("/healthz", _healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                *routes,
            ],
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._starlette(scope, receive, send)
        elif scope["path"] == "/graphql" and self._http is not None and self._websocket is not None:
            await (self._http if scope["type"] == "http" else self._websocket)(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/v1/") and self._gateway is not None:
            await self._gateway(scope, receive, send)
        elif scope["type"] == "http":
            await self._authenticated(scope, receive, send)
        else:
            await self._starlette(scope, receive, send)

    async def _authenticated(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in _OPEN_PATHS:
            authorization = header(scope, b"authorization")
            try:
                if self._services is None:
                    raise DatabaseUnavailable("the process is starting")
                identity = await authenticate(self._services.authenticator, authorization)
            except Unauthenticated as error:
                await unauthenticated(error.message, has_token=bool(authorization)).send(send)
                return
            except DatabaseUnavailable as error:
                await refusal(503, error.message, error.code).send(send)
                return
            scope.setdefault("state", {})["identity"] = identity
        await self._starlette(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with self._open_services() as services:
            engine = Engine(schema, services.config, RECORD_TYPES)
            self._services = services
            self._http = GraphQLHttp(engine, services, self.metrics)
            self._websocket = GraphQLWebSocket(engine, services)
            self._gateway = Gateway(services)
            self.metrics.gauge(
                "tollgate_catalog_revision",
                "The revision of the catalog that this process holds.",
                lambda: services.snapshots.current.revision,
            )
            self.metrics.gauge(
                "tollgate_listener_connected",
                "1 while notifications of the database are received.",
                lambda: float(services.listener.is_connected),
            )
            try:
                yield
            finally:
                self._services = self._http = self._websocket = self._gateway = None

    async def _readyz(self, _request: Request) -> Response:
        if self._services is None:
            return JSONResponse({"status": "starting"}, 503)
        try:
            async with self._services.database.connection() as connection:
                await connection.execute("SELECT 1", timeout=5)
            revision = self._services.snapshots.current.revision
        except (DatabaseUnavailable, *DATABASE_TROUBLE) as error:
            _log.warning("not_ready", error=str(error))
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ready", "catalogRevision": revision})

    async def _metrics(self, _request: Request) -> Response:
        calls = b"" if self._services is None else generate_latest(self._services.call_metrics)
        return Response(self.metrics.render() + calls, media_type="text/plain; version=0.0.4")


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def create_app(open_services: OpenServices, routes: Sequence[BaseRoute] = ()) -> Application:
    """The application. `routes` are served to whoever has a valid token; `request.state.identity` says whose."""
    return Application(open_services, routes)

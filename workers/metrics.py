"""A worker's /metrics, for whoever has a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from starlette.types import Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.api.asgi import answer, authenticate, header, unauthenticated
from app.config import Config
from app.db.pool import Database
from app.errors import Unauthenticated
from app.serving import Server, bind


@asynccontextmanager
async def serving_metrics(config: Config, database: Database, registry: CollectorRegistry) -> AsyncIterator[None]:
    """For as long as the block, where `worker_metrics_port` is set. Raises ConfigurationError where it is taken."""
    if config.worker_metrics_port is None:
        yield
        return
    authenticator = Authenticator(database)

    async def application(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        authorization = header(scope, b"authorization")
        try:
            await authenticate(authenticator, authorization)
        except Unauthenticated as error:
            await unauthenticated(error.message, has_token=bool(authorization)).send(send)
            return
        if scope["path"] == "/metrics":
            await answer(200, generate_latest(registry), "text/plain; version=0.0.4").send(send)
        else:
            await answer(404, b"not found\n", "text/plain").send(send)

    listener = bind(config.model_copy(update={"port": config.worker_metrics_port}))
    server = Server(uvicorn.Config(application, lifespan="off", access_log=False, log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="metrics server")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()

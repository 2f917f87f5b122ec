"""The HTTP server: bound first, so that a taken port is known before anything is started."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn

from app.api.services import ApiServices
from app.bootstrap import open_api
from app.config import Config
from app.errors import ConfigurationError
from app.http_protocol import HttpProtocol

_GRACE_SECONDS = 5
_HURRIED_GRACE_SECONDS = 1


class Server(uvicorn.Server):
    """Leaves the signals to whoever runs it, and says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(config: Config) -> socket.socket:
    """A listening socket at TOLLGATE_HOST and TOLLGATE_PORT. Raises ConfigurationError where that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: without it Nagle and delayed ACK hold back small answers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {config.port} of {config.host} is in use: stop what uses it, or set TOLLGATE_PORT to another"
            ) from None
        raise ConfigurationError(
            f"cannot listen on TOLLGATE_HOST {config.host!r}, TOLLGATE_PORT {config.port}: {error.strerror or error}"
        ) from None
    listener.set_inheritable(False)
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - told apart, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serving(config: Config, listener: socket.socket, *, hurry: asyncio.Event) -> AsyncIterator[None]:
    """Serves the API for as long as the block; ready when it is entered. Raises DatabaseUnavailable and the like.

    After the block running calls may end, for the configured time or until `hurry` is set.
    """
    # Imported here: building the GraphQL schema takes its time, and the caller may have other things started by then.
    from app.main import create_app

    async with open_api(config, is_guarded=True) as services:

        @asynccontextmanager
        async def ready() -> AsyncIterator[ApiServices]:
            yield services

        server = Server(
            uvicorn.Config(
                create_app(ready),
                loop="uvloop",
                http=HttpProtocol,
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(config.drain_seconds) + _GRACE_SECONDS,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
        try:
            ready_or_not = asyncio.create_task(server.ready.wait())
            await asyncio.wait({task, ready_or_not}, return_when=asyncio.FIRST_COMPLETED)
            ready_or_not.cancel()
            if task.done():
                await task
                raise ConfigurationError("the HTTP server did not start; see the log")
            # What was built until now lives as long as the process: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            yield
        finally:
            server.should_exit = True
            # No new connections from now on; the gateway's running calls may end.
            hurrying = asyncio.create_task(_hurry(server, hurry), name="hurry")
            draining = services.gateway.drain(seconds=config.drain_seconds, hurry=hurry)
            await asyncio.gather(draining, task, return_exceptions=True)
            hurrying.cancel()


async def _hurry(server: Server, hurry: asyncio.Event) -> None:
    """Who does not take the end of an answer then is not waited for either."""
    await hurry.wait()
    await asyncio.sleep(_HURRIED_GRACE_SECONDS)
    server.force_exit = True

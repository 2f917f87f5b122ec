"""Runs the emulator as a process: one listening socket, one line on stdout when it is ready."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from types import FrameType
from typing import TextIO

import orjson
import uvicorn

from app.errors import ConfigurationError
from app.providers.emulator.control import Control
from app.providers.emulator.exchange import EmulatorHttpProtocol
from app.providers.emulator.provider import Providers
from app.providers.emulator.server import EmulatorApp

_BACKLOG = 4096
_KEEP_ALIVE_SECONDS = 300
_GC_THRESHOLD = 50_000
"""The record keeps much that a collection would visit again and again, and hardly anything here is a cycle."""


def build_app(providers: Providers) -> EmulatorApp:
    return EmulatorApp(providers, Control(providers).app())


def listen(host: str, port: int) -> socket.socket:
    """Port 0: any free one. Connections inherit TCP_NODELAY. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, url: str, *, until_stdin_closes: bool) -> None:
        super().__init__(config)
        self._url = url
        self._until_stdin_closes = until_stdin_closes

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._until_stdin_closes:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read_stdin)
        _announce(sys.stdout, self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Nothing here is worth draining, and a call that was told to hang would never end.
        self.should_exit = self.force_exit = True

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.should_exit = self.force_exit = True


def serve(providers: Providers, listener: socket.socket, *, until_stdin_closes: bool = False) -> None:
    """Returns after SIGINT or SIGTERM, or when stdin closes if so asked, which ties it to the process that began it."""
    config = uvicorn.Config(
        build_app(providers),
        loop="uvloop",
        http=EmulatorHttpProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    _Server(config, url_of(listener), until_stdin_closes=until_stdin_closes).run(sockets=[listener])


def _announce(stream: TextIO, url: str) -> None:
    line = orjson.dumps({"event": "ready", "url": url, "pid": os.getpid()})
    stream.write(line.decode() + "\n")
    stream.flush()

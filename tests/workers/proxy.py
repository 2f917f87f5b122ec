"""A TCP proxy before PostgreSQL that a test can cut, let fall silent, or have lose an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class Proxy:
    def __init__(self, dsn: str) -> None:
        self._url = urlsplit(dsn)
        self._socket_directory = parse_qs(self._url.query).get("host", [None])[0]
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loses_answer = False

    @property
    def dsn(self) -> str:
        """As the proxied one, through this proxy."""
        assert self._server is not None
        credentials, _, _ = self._url.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{credentials}@127.0.0.1:{port}{self._url.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def cut(self) -> None:
        """Breaks every connection, and refuses new ones."""
        assert self._server is not None
        self._server.close()
        self.sever()

    def sever(self) -> None:
        """Breaks every connection that stands."""
        for writer in self._writers:
            writer.transport.abort()

    def fall_silent(self) -> None:
        """Connections stay, and nothing passes any more, as where a network drops every packet."""
        self._flowing.clear()

    def lose_next_answer(self) -> None:
        """Breaks every connection when the server answers next: what it was asked is done."""
        self._loses_answer = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._socket_directory is not None:
            path = f"{self._socket_directory}/.s.PGSQL.{self._url.port or 5432}"
            server_reader, server_writer = await asyncio.open_unix_connection(path)
        else:
            server_reader, server_writer = await asyncio.open_connection(self._url.hostname, self._url.port or 5432)
        self._writers |= {writer, server_writer}
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer, is_answer=True))
        self._writers -= {writer, server_writer}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        try:
            while data := await reader.read(65536):
                if is_answer and self._loses_answer:
                    self._loses_answer = False
                    self.sever()
                    return
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut, or the other side went away
        finally:
            writer.close()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.cut()

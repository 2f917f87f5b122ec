"""One HTTP request and its response over ASGI, with what ASGI leaves out: a client that leaves, a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TRANSPORT = "tollgate.transport"
"""The ASGI extension that holds the connection's transport."""

Headers = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client closed the connection before its call ended."""


class EmulatorHttpProtocol(HttpToolsProtocol):
    """uvicorn's, with the transport in the scope, so that an injected fault can break the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class Exchange:
    __slots__ = ("_receive", "_send", "_transport")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._transport: asyncio.Transport = scope["extensions"][TRANSPORT]["transport"]

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole body; None where it is larger than the limit. Raises ClientGone."""
        message = await self._receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
            return body if len(body) <= limit_bytes else None
        parts, size = [], 0
        while message["type"] != "http.disconnect":
            size += len(message["body"])
            if size <= limit_bytes:
                parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts) if size <= limit_bytes else None
            message = await self._receive()
        raise ClientGone

    async def pause(self, seconds: float | None) -> None:
        """Waits, for ever where None; notices at once that the client leaves. Raises ClientGone."""
        try:
            async with asyncio.timeout(seconds):
                await self._until_gone()
        except TimeoutError:
            return
        raise ClientGone

    async def start(self, status: int, headers: Headers) -> None:
        if self._transport.is_closing():
            raise ClientGone
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool) -> None:
        if self._transport.is_closing():
            raise ClientGone
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.write(body, more=False)

    async def break_off(self) -> None:
        """Closes the connection after what was written so far."""
        self._transport.close()
        await self._until_gone()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

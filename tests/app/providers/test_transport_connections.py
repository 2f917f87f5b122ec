"""The HTTP client's connections: kept, closed by the other side, through proxies; and what comes over them."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.errors import ConfigurationError, ConnectionFailed, InvalidRequest, InvalidResponse, PermitExpired
from app.providers.adapter import WireRequest, WireResponse
from app.providers.transport import Transport
from tests.slow_tls import slow_tls

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Gives each request the next of its answers; an empty one closes the connection."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self.heads: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(b"{}"))
                self.heads.append(head)
                answer = self._answers.pop(0)
                if not answer:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


async def send(
    transport: Transport, url: str, headers: dict[str, str] | None = None, *, held_seconds: float = 10
) -> WireResponse:
    request = WireRequest(f"{url}/v1/x", headers or {}, b"{}")
    return await transport.send(request, connect_seconds=10, read_seconds=10, send_by=time.monotonic() + held_seconds)


async def test_a_connection_is_used_again() -> None:
    async with serving(OK, OK) as server, Transport(max_connections=4) as transport:
        for _ in range(2):
            assert (await send(transport, server.url)).body == b"ok"
        assert server.connections == 1


async def test_a_call_over_a_kept_connection_that_is_closed_unanswered_fails_and_is_not_sent_again() -> None:
    async with serving(OK, b"", OK) as server, Transport(max_connections=4) as transport:
        await send(transport, server.url)
        with pytest.raises(ConnectionFailed):
            await send(transport, server.url)
        assert len(server.heads) == 2
        assert (await send(transport, server.url)).body == b"ok"


async def test_a_connection_whose_handshake_outlasted_the_permit_serves_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(OK, OK) as server, slow_tls(server.url, tmp_path, handshake_seconds=0.8) as provider:
        monkeypatch.setenv("SSL_CERT_FILE", str(provider.authority))
        # One place for connections: the second call gets it only where the first one gave it back.
        async with Transport(max_connections=1) as transport:
            with pytest.raises(PermitExpired):
                await send(transport, provider.url, held_seconds=0.5)
            assert server.heads == []
            for _ in range(2):
                assert (await send(transport, provider.url, held_seconds=0.5)).body == b"ok"
        assert provider.handshakes == 1


async def test_a_redirect_is_an_answer() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
    async with serving(moved) as server, Transport(max_connections=4) as transport:
        answer = await send(transport, server.url)
    assert (answer.status, answer.headers["location"]) == (307, "/elsewhere")
    assert len(server.heads) == 1


def _packed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_compressed_answer_is_unpacked() -> None:
    async with serving(_packed(gzip.compress(b"hello"))) as server, Transport(max_connections=4) as transport:
        assert (await send(transport, server.url)).body == b"hello"


@pytest.mark.parametrize("answer", [_packed(b"this is no gzip"), b"nonsense\r\n\r\n"])
async def test_what_cannot_be_read_is_an_invalid_response(answer: bytes) -> None:
    async with serving(answer) as server, Transport(max_connections=4) as transport:
        with pytest.raises(InvalidResponse):
            await send(transport, server.url)


async def test_calls_go_through_the_environment_s_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(OK) as proxy, serving(OK) as direct:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://user:word@"))
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:word@"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with Transport(max_connections=4) as transport:
            await send(transport, "http://provider.invalid")
            await send(transport, direct.url)
        assert proxy.heads[0].startswith(b"POST http://provider.invalid/v1/x HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in proxy.heads[0]
        assert direct.heads[0].startswith(b"POST /v1/x HTTP/1.1\r\n")


def test_a_proxy_of_another_kind_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@localhost:1080")
    with pytest.raises(ConfigurationError) as caught:
        Transport(max_connections=4)
    assert "secret" not in str(caught.value)


async def test_a_header_that_cannot_be_sent_is_refused_without_showing_it() -> None:
    async with serving(OK) as server, Transport(max_connections=4) as transport:
        with pytest.raises(InvalidRequest) as caught:
            await send(transport, server.url, {"authorization": "Bearer secret\r\nx: y"})
        assert server.heads == []
    assert "secret" not in str(caught.value)

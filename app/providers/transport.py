"""The HTTP client under every adapter: one pool per process, timeouts, and the permit's last check."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import ContentEncodingError
from multidict import CIMultiDictProxy
from yarl import URL

from app.errors import CallTimeout, ConfigurationError, ConnectionFailed, InvalidRequest, InvalidResponse, PermitExpired
from app.providers.adapter import WireRequest, WireResponse

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
_KEEP_ALIVE_SECONDS: Final = 4.0
"""An idle connection is given up before the five seconds after which the servers of Node and uvicorn close theirs: a
call that crosses with such a close would be an attempt spent."""

_send_by: ContextVar[float | None] = ContextVar("send_by", default=None)


class _PermittedRequest(aiohttp.ClientRequest):
    """Looks at the clock just before its bytes are written, which may be in a later turn of the event loop."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        try:
            _check_permit()
        except PermitExpired:
            # What took so long may have been the handshake: unused, the connection serves the next permit at once.
            conn.release()
            raise
        return await super().send(conn)

    async def write_bytes(self, writer: AbstractStreamWriter, conn: Any, content_length: int | None = None) -> None:
        try:
            _check_permit()
        except PermitExpired as error:
            # The head is still held back, to go out with the body: nothing has been sent. The answer that is waited
            # for is this error, and closes the connection.
            conn.protocol.set_exception(error)
            return
        await super().write_bytes(writer, conn, content_length)


def _check_permit() -> None:
    send_by = _send_by.get()
    if send_by is not None and time.monotonic() > send_by:
        raise PermitExpired("the call could not be sent while its permit held")


class StreamedResponse:
    """An answer whose body comes piece by piece; header names in lower case."""

    def __init__(self, response: aiohttp.ClientResponse, read_seconds: float) -> None:
        self._response = response
        self._read_seconds = read_seconds
        self.status = response.status

    async def pieces(self, max_bytes: int | None = None) -> AsyncGenerator[bytes]:
        """Each piece as it comes. Raises InvalidResponse for more than `max_bytes`; None: MAX_RESPONSE_BYTES."""
        size, max_bytes = 0, MAX_RESPONSE_BYTES if max_bytes is None else max_bytes
        with _provider_errors(self._read_seconds):
            async for piece in self._response.content.iter_any():
                size += len(piece)
                if size > max_bytes:
                    raise InvalidResponse(
                        f"the provider's answer is larger than {max_bytes} bytes", http_status=self.status
                    )
                yield piece

    async def whole(self) -> WireResponse:
        body = b"".join([piece async for piece in self.pieces()])
        return WireResponse(self.status, self.headers, body)

    @property
    def size_bytes(self) -> int | None:
        """Of the body as `pieces` gives it; None where that is not told, or not as it will be."""
        if "content-encoding" in self._response.headers:
            return None
        return self._response.content_length

    @property
    def headers(self) -> dict[str, str]:
        return _lower_case(self._response.headers)


class Transport:
    """To be used on one event loop. Proxies are those of the environment."""

    def __init__(self, *, max_connections: int) -> None:
        self._max_connections = max_connections
        self._proxies = _Proxies()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=_tls_context()
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=_PermittedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "tollgate"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, request: WireRequest, *, connect_seconds: float, read_seconds: float, send_by: float | None
    ) -> WireResponse:
        """As `stream`, and reads the whole answer."""
        async with await self._open(request, connect_seconds, read_seconds, send_by) as response:
            return await StreamedResponse(response, read_seconds).whole()

    @asynccontextmanager
    async def stream(
        self, request: WireRequest, *, connect_seconds: float, read_seconds: float, send_by: float | None
    ) -> AsyncIterator[StreamedResponse]:
        """Sends, and reads the answer as it comes.

        `send_by` is a time.monotonic() instant: a request whose first byte could not go out by then is not sent, and
        PermitExpired is raised. Raises CallTimeout, ConnectionFailed and InvalidResponse else.
        """
        async with await self._open(request, connect_seconds, read_seconds, send_by) as response:
            yield StreamedResponse(response, read_seconds)

    async def _open(
        self, request: WireRequest, connect_seconds: float, read_seconds: float, send_by: float | None
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        _send_by.set(send_by)
        with _provider_errors(read_seconds):
            try:
                proxy, proxy_headers = self._proxies.of(request.url)
                return await self._session.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body or None,
                    timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=read_seconds),
                    allow_redirects=False,
                    proxy=proxy,
                    proxy_headers=proxy_headers,
                )
            except (aiohttp.InvalidURL, ValueError):
                # Not the error's own text: it may quote a header.
                raise InvalidRequest("the provider's base URL cannot be used") from None


@contextmanager
def _provider_errors(read_seconds: float) -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise ConnectionFailed("no connection to the provider in time") from None
    except TimeoutError:
        raise CallTimeout(f"the provider sent nothing for {read_seconds:g} s") from None
    except aiohttp.ClientResponseError as error:
        raise InvalidResponse(f"the provider's answer cannot be read: {type(error).__name__}") from None
    except aiohttp.ClientPayloadError as error:
        if isinstance(error.__cause__, ContentEncodingError):
            raise InvalidResponse("the provider's answer cannot be read: its compression is broken") from None
        raise ConnectionFailed("the connection to the provider ended in the middle of the answer") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionFailed(f"the connection to the provider failed: {type(error).__name__}") from None


class _Proxies:
    """Which proxy leads to which host: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read once."""

    def __init__(self) -> None:
        environment = getproxies()
        self._urls: dict[str, tuple[URL, dict[str, str] | None]] = {}
        for scheme in ("http", "https"):
            given = environment.get(scheme) or environment.get("all")
            if given:
                self._urls[scheme] = _proxy(given, scheme)

    def of(self, url: str) -> tuple[URL | None, dict[str, str] | None]:
        """The proxy and the headers for it. Raises ValueError for what is no URL."""
        if not self._urls:
            return None, None
        parts = urlsplit(url)
        proxy = self._urls.get(parts.scheme)
        if proxy is None or proxy_bypass(parts.netloc.rpartition("@")[2]):
            return None, None
        return proxy


def _proxy(given: str, scheme: str) -> tuple[URL, dict[str, str] | None]:
    try:
        url = URL(given if "://" in given else f"http://{given}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"the environment's proxy for {scheme} cannot be used: an http:// URL is needed")
    if url.user is None:
        return url, None
    # aiohttp makes it Proxy-Authorization, on a tunnel and on a call in the clear.
    return url.with_user(None), {"Authorization": aiohttp.encode_basic_auth(url.user, url.password or "")}


def _tls_context() -> ssl.SSLContext:
    """SSL_CERT_FILE and SSL_CERT_DIR replace the authorities that come with certifi."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())


def _lower_case(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}

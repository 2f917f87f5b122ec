"""The HTTP client under every adapter: one pool per process, timeouts, and the permit's last check."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import httpx

from app.errors import CallTimeout, ConnectionFailed, InvalidRequest, InvalidResponse, PermitExpired
from app.providers.adapter import WireRequest, WireResponse

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024


class StreamedResponse:
    """An answer whose body comes piece by piece; header names in lower case."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    async def pieces(self) -> AsyncIterator[bytes]:
        """Each piece as it comes. Raises InvalidResponse where there is more than MAX_RESPONSE_BYTES."""
        size = 0
        async for piece in self._response.aiter_bytes():
            size += len(piece)
            if size > MAX_RESPONSE_BYTES:
                raise InvalidResponse(
                    f"the provider's answer is larger than {MAX_RESPONSE_BYTES} bytes", http_status=self.status
                )
            yield piece

    async def whole(self) -> WireResponse:
        body = b"".join([piece async for piece in self.pieces()])
        return WireResponse(self.status, dict(self._response.headers.items()), body)

    @property
    def headers(self) -> dict[str, str]:
        return dict(self._response.headers.items())


class Transport:
    """To be used on one event loop."""

    def __init__(self, *, max_connections: int) -> None:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        self._client = httpx.AsyncClient(limits=limits, follow_redirects=False, trust_env=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(
        self, request: WireRequest, *, connect_seconds: float, read_seconds: float, send_by: float | None
    ) -> WireResponse:
        """As `stream`, and reads the whole answer."""
        async with self.stream(
            request, connect_seconds=connect_seconds, read_seconds=read_seconds, send_by=send_by
        ) as response:
            return await response.whole()

    @asynccontextmanager
    async def stream(
        self, request: WireRequest, *, connect_seconds: float, read_seconds: float, send_by: float | None
    ) -> AsyncIterator[StreamedResponse]:
        """Sends, and reads the answer as it comes.

        `send_by` is a time.monotonic() instant: a request whose first byte could not go out by then is not sent, and
        PermitExpired is raised. Raises CallTimeout, ConnectionFailed and InvalidResponse else.
        """

        async def trace(event: str, _info: Any) -> None:
            if send_by is not None and event.endswith("send_request_headers.started") and time.monotonic() > send_by:
                raise PermitExpired("the call could not be sent while its permit held")

        try:
            async with self._client.stream(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                timeout=httpx.Timeout(read_seconds, connect=connect_seconds),
                extensions={"trace": trace},
            ) as response:
                yield StreamedResponse(response)
        except httpx.ConnectTimeout:
            raise ConnectionFailed("no connection to the provider in time") from None
        except httpx.TimeoutException:
            raise CallTimeout(f"the provider sent nothing for {read_seconds:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise InvalidRequest("the provider's base URL cannot be used") from None
        except (httpx.DecodingError, httpx.TooManyRedirects) as error:
            raise InvalidResponse(f"the provider's answer cannot be read: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"the connection to the provider failed: {type(error).__name__}") from None

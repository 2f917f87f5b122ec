"""The HTTP client under every adapter: one pool per process, timeouts, and the permit's last check."""

from __future__ import annotations

import time
from typing import Any, Final, Self

import httpx

from app.errors import CallTimeout, ConnectionFailed, InvalidRequest, InvalidResponse, PermitExpired
from app.providers.protocol import WireRequest, WireResponse

CONNECT_TIMEOUT_SECONDS: Final = 10.0
MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024


class Transport:
    """To be used on one event loop."""

    def __init__(self, *, max_connections: int) -> None:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        self._client = httpx.AsyncClient(limits=limits, follow_redirects=False, trust_env=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, request: WireRequest, *, timeout_seconds: float, send_by: float) -> WireResponse:
        """Sends, and reads the whole answer.

        `send_by` is a time.monotonic() instant: a request whose first byte could not go out by then is not sent, and
        PermitExpired is raised. Raises CallTimeout, ConnectionFailed and InvalidResponse else.
        """

        async def trace(event: str, _info: Any) -> None:
            if event.endswith("send_request_headers.started") and time.monotonic() > send_by:
                raise PermitExpired("the call could not be sent while its permit held")

        timeout = httpx.Timeout(timeout_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds))
        try:
            async with self._client.stream(
                "POST",
                request.url,
                headers=dict(request.headers),
                content=request.body,
                timeout=timeout,
                extensions={"trace": trace},
            ) as response:
                body = await _read(response)
                return WireResponse(response.status_code, dict(response.headers.items()), body)
        except httpx.ConnectTimeout:
            raise ConnectionFailed("no connection to the provider in time") from None
        except httpx.TimeoutException:
            raise CallTimeout(f"the provider did not answer within {timeout_seconds:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise InvalidRequest("the provider's base URL cannot be used") from None
        except (httpx.DecodingError, httpx.TooManyRedirects) as error:
            raise InvalidResponse(f"the provider's answer cannot be read: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"the connection to the provider failed: {type(error).__name__}") from None


async def _read(response: httpx.Response) -> bytes:
    chunks = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise InvalidResponse(
                f"the provider's answer is larger than {MAX_RESPONSE_BYTES} bytes", http_status=response.status_code
            )
        chunks.append(chunk)
    return b"".join(chunks)

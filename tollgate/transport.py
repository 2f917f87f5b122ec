"""Makes the calls of operations: one httpx client for all threads, and one for each event loop."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httpx

from tollgate.errors import ConfigurationError, ServerUnreachable
from tollgate.steps import Call, Pause, Reply, Steps, gateway_error

Result = TypeVar("Result")

_CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# The server closes a connection that has been idle for 5 seconds; one that is about to close must not be used again.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=3)


class Transport:
    """Safe for threads and for event loops."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
            raise ConfigurationError("the server's URL must be of the form http://host:port", path=("url",))
        self.url = url.rstrip("/")
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"authorization": f"Bearer {token}"},
            "timeout": httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
            "limits": _LIMITS,
            # A proxy of the environment is not for a server on this machine.
            "trust_env": parts.hostname not in _LOOPBACK,
            # Made once: it takes longer than a call.
            "verify": ssl.create_default_context() if parts.scheme == "https" else False,
        }
        self._client = httpx.Client(**self._options)
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def run(self, steps: Steps[Result]) -> Result:
        reply: Reply | None = None
        try:
            while True:
                step = steps.send(reply)
                reply = None
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    with self._explained():
                        reply = _reply(self._client.post(step.path, json=step.body, headers=step.headers))
        except StopIteration as end:
            result: Result = end.value
            return result

    async def run_async(self, steps: Steps[Result]) -> Result:
        reply: Reply | None = None
        try:
            while True:
                step = steps.send(reply)
                reply = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    with self._explained():
                        client = self._async_client()
                        reply = _reply(await client.post(step.path, json=step.body, headers=step.headers))
        except StopIteration as end:
            result: Result = end.value
            return result

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read. Raises the error that it is instead."""
        with (
            self._explained(),
            self._client.stream("POST", call.path, json=call.body, headers=call.headers) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise gateway_error(_reply(response))
            yield response

    @asynccontextmanager
    async def stream_async(self, call: Call) -> AsyncIterator[httpx.Response]:
        with self._explained():
            client = self._async_client()
            async with client.stream("POST", call.path, json=call.body, headers=call.headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise gateway_error(_reply(response))
                yield response

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        """Closes the client of this event loop too."""
        self._client.close()
        with self._lock:
            client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._async_clients.get(loop)
            if client is None:
                client = self._async_clients[loop] = httpx.AsyncClient(**self._options)
        return client

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ServerUnreachable(f"no Tollgate server answers at {self.url}: {error}") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachable(f"the answer of {self.url} did not come, or broke off: {reason}") from error


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers.items()), response.content)

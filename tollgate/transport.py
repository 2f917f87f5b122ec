"""Makes the calls of operations: one httpx client for all threads, and one for each event loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from tollgate.errors import ConfigurationError, ServerUnreachable, TollgateError
from tollgate.steps import Call, Pause, Reply, Steps, gateway_error

Result = TypeVar("Result")

_CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# The server closes a connection that has been idle for 5 seconds; one that is about to close must not be used again.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=3)


class Transport:
    """Safe for threads, for event loops, and for processes that are forked."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
            raise ConfigurationError("the server's URL must be of the form http://host:port", path=("url",))
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"authorization": f"Bearer {token}"},
            "limits": _LIMITS,
            # A proxy of the environment is not for a server on this machine.
            "trust_env": parts.hostname not in _LOOPBACK,
            # Made once: it takes longer than a call.
            "verify": ssl.create_default_context() if parts.scheme == "https" else False,
        }
        self._open()

    def _open(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._client = httpx.Client(**self._options)
        self._async_clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def run(self, steps: Steps[Result]) -> Result:
        try:
            step = next(steps)
            while True:
                try:
                    reply = self._make(step)
                except TollgateError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def run_async(self, steps: Steps[Result]) -> Result:
        try:
            step = next(steps)
            while True:
                try:
                    reply = await self._make_async(step)
                except TollgateError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _make(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        with self._explained():
            return _reply(self._sync_client().post(step.path, **self._request(step)))

    async def _make_async(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        with self._explained():
            return _reply(await self._async_client().post(step.path, **self._request(step)))

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read. Raises the error that it is instead."""
        with self._explained(), self._sync_client().stream("POST", call.path, **self._request(call)) as response:
            if response.status_code != 200:
                response.read()
                raise gateway_error(_reply(response))
            yield response

    @asynccontextmanager
    async def stream_async(self, call: Call) -> AsyncIterator[httpx.Response]:
        with self._explained():
            async with self._async_client().stream("POST", call.path, **self._request(call)) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise gateway_error(_reply(response))
                yield response

    def _request(self, call: Call) -> dict[str, Any]:
        timeout = httpx.Timeout(self._timeout_seconds + call.wait_seconds, connect=_CONNECT_SECONDS, pool=None)
        content = {"json": call.body} if call.files is None else {"data": call.body, "files": call.files}
        return {**content, "headers": call.headers, "timeout": timeout}

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        """Closes the client of this event loop too."""
        self._client.close()
        with self._lock:
            client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _sync_client(self) -> httpx.Client:
        self._leave_to_parent()
        return self._client

    def _async_client(self) -> httpx.AsyncClient:
        self._leave_to_parent()
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._async_clients.get(loop)
            if client is None:
                # The connections of a loop that has ended keep it in memory.
                self._async_clients = {of: kept for of, kept in self._async_clients.items() if not of.is_closed()}
                client = self._async_clients[loop] = httpx.AsyncClient(**self._options)
        return client

    def _leave_to_parent(self) -> None:
        """A forked process must not write to the connections that it shares with its parent."""
        if self._process_id != os.getpid():
            self._open()

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

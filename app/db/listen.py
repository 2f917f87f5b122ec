"""LISTEN: one connection of its own per process, that comes back by itself and says when it may have missed some."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from app.db.trouble import DATABASE_TROUBLE

CATALOG = "tollgate_catalog"
"""Payload: the catalog's new revision."""
ACCESS = "tollgate_access"
"""Payload: the access tokens' new revision."""
WORK = "tollgate_work"
"""Payload: the id of a provider that has something new to claim."""
REQUESTS = "tollgate_requests"
"""Payload: ids of requests whose state changed, separated by spaces."""
CANCEL = "tollgate_cancel"
"""Payload: the id of a running request that is to be cancelled."""

_PROBE_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Listener:
    """Calls back for each notification, and for each (re)connect.

    A notification sent while no connection stood is lost; whoever depends on it re-reads its truth in `on_connect`.
    Callbacks run on the event loop and must not block.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._callbacks: dict[str, list[Callable[[str], None]]] = defaultdict(list)
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lost = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def subscribe(self, channel: str, callback: Callable[[str], None]) -> None:
        """To be called before `start`."""
        self._callbacks[channel].append(callback)

    def on_connect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """`callback` is awaited after each connect, the first included, when LISTEN already stands."""
        self._on_connect.append(callback)

    async def start(self) -> None:
        """Connects, and returns when every `on_connect` has been awaited once. Raises what the first connect raises."""
        await self._connect()
        self._task = asyncio.create_task(self._keep(), name="listener")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def _connect(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=10, server_settings={"application_name": "tollgate listener"}
        )
        try:
            self._lost = asyncio.Event()
            lost = self._lost
            connection.add_termination_listener(lambda _: lost.set())
            for channel, callbacks in self._callbacks.items():
                for callback in callbacks:
                    await connection.add_listener(channel, _adapt(callback))
            for on_connect in self._on_connect:
                await on_connect()
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def _keep(self) -> None:
        while True:
            await self._watch()
            self._connection = None
            _log.warning("listener_lost")
            backoff = _FIRST_BACKOFF_SECONDS
            while self._connection is None:
                try:
                    await self._connect()
                except Exception as error:  # noqa: BLE001 - whatever a refresh raises, the process must not stay deaf
                    reason = f"{type(error).__name__}: {error}"
                    _log.warning("listener_reconnect_failed", error=reason, retry_seconds=backoff)
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            _log.info("listener_reconnected")

    async def _watch(self) -> None:
        """Returns when the connection is gone: noticed at once where it was closed, by a probe where it went silent."""
        connection = self._connection
        assert connection is not None
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                try:
                    await connection.execute("SELECT 1", timeout=_PROBE_SECONDS)
                except DATABASE_TROUBLE:
                    connection.terminate()
                    return


def _adapt(callback: Callable[[str], None]) -> Callable[..., None]:
    def receive(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        callback(str(payload))

    return receive

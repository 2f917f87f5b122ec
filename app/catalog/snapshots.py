"""Keeps this process's snapshot of the catalog at the newest committed revision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.catalog import repository
from app.catalog.snapshot import Snapshot
from app.db.listen import CATALOG, Listener
from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable

_POLL_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class SnapshotHolder:
    """`current` never goes back to an older revision; one reload runs at a time, however many ask for one.

    While the listener is down, the revision is polled once a second instead.
    """

    def __init__(self, database: Database, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._current: Snapshot | None = None
        self._basis: Snapshot | None = None
        self._listener: Listener | None = None
        self._announced = 0
        self._loading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[Snapshot], None]] = []

    @property
    def current(self) -> Snapshot:
        if self._current is None:
            raise DatabaseUnavailable("the catalog has not been read yet")
        return self._current

    def attach(self, listener: Listener) -> None:
        """To be called before `listener.start()`, which then reads the first snapshot."""
        self._listener = listener
        listener.subscribe(CATALOG, self._on_notice)
        listener.on_connect(self._on_connect)

    def on_change(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """`callback` is called on the event loop with each new snapshot; the answer ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def refresh(self, at_least: int | None = None) -> Snapshot:
        """Answers a snapshot of revision `at_least`; without it, one that holds all that is committed now."""
        if at_least is None:
            async with self._database.connection() as connection:
                at_least = await repository.read_revision(connection)
        for _ in range(2):
            if self._current is not None and self._current.revision >= at_least:
                break
            # A load that was under way may have begun too early; one that begins now sees every earlier commit.
            await self._load_together()
        return self.current

    async def stop(self) -> None:
        tasks = [task for task in (self._polling, self._following, self._loading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load_together(self) -> None:
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load(), name="catalog snapshot")
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            loaded = await repository.load_snapshot(connection, self._basis)
        self._basis = loaded
        if self._current is not None and loaded.revision <= self._current.revision:
            return
        self._current = loaded
        for callback in tuple(self._callbacks):
            callback(loaded)

    def _on_notice(self, payload: str) -> None:
        self._announced = max(self._announced, int(payload))
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="catalog follower")

    async def _follow(self) -> None:
        try:
            while self.current.revision < (announced := self._announced):
                await self.refresh(announced)
                # A notice comes after its commit, so what was read just now is all there is.
                if self.current.revision < announced == self._announced:
                    self._announced = self.current.revision
        except DATABASE_TROUBLE as error:
            _log.warning("catalog_refresh_failed", error=str(error), retry_seconds=self._poll_seconds)

    async def _on_connect(self) -> None:
        # It may be another server now, restored from a copy: what was read before is no basis for what comes.
        self._basis = None
        await self.refresh()
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll(), name="catalog poll")

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            assert self._listener is not None
            if self._listener.is_connected and self.current.revision >= self._announced:
                continue
            try:
                await self.refresh()
            except DATABASE_TROUBLE as error:
                _log.warning("catalog_refresh_failed", error=str(error), retry_seconds=self._poll_seconds)

"""Tells subscribers in this process which requests changed, whichever process changed them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.db.listen import REQUESTS, Listener


class RequestEvents:
    """One event per watched request; a burst of changes is one wake-up, and the watcher reads the state anew."""

    def __init__(self, listener: Listener) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}
        listener.subscribe(REQUESTS, self._receive)
        listener.on_connect(self._wake_all)

    @asynccontextmanager
    async def watch(self, request_id: str) -> AsyncIterator[asyncio.Event]:
        """The event is set whenever the request may have changed, also after a time of no connection."""
        event = asyncio.Event()
        self._watchers.setdefault(request_id, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._watchers[request_id]
            watchers.discard(event)
            if not watchers:
                del self._watchers[request_id]

    def _receive(self, payload: str) -> None:
        if not self._watchers:
            return
        for request_id in payload.split():
            for event in self._watchers.get(request_id, ()):
                event.set()

    async def _wake_all(self) -> None:
        for events in self._watchers.values():
            for event in events:
                event.set()

"""What a client is told that waited in vain: when to come back."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.limits import repository
from app.limits.forecast import Backlog, seconds_until_permit

_LEAST_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Forecasts:
    """Asks the database once per provider and second at most, however many clients are turned away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: dict[str, tuple[float, asyncio.Task[Backlog | None]]] = {}

    async def seconds(self, provider_id: str, *, tokens: int) -> float:
        """Until a call that came now and reserves so many tokens would get its permit; at least one second."""
        known = self._read.get(provider_id)
        if known is None or time.monotonic() - known[0] >= _FRESH_SECONDS:
            known = time.monotonic(), asyncio.create_task(self._backlog(provider_id), name=f"backlog {provider_id}")
            self._read[provider_id] = known
        read_at, reading = known
        # Others wait for the same answer: a client that leaves must not end it.
        backlog = await asyncio.shield(reading)
        if backlog is None:
            return _LEAST_SECONDS
        return max(_LEAST_SECONDS, seconds_until_permit(backlog, tokens=tokens) - (time.monotonic() - read_at))

    async def _backlog(self, provider_id: str) -> Backlog | None:
        try:
            async with self._database.connection() as connection:
                return await repository.backlog_of(connection, provider_id)
        except DATABASE_TROUBLE as error:
            _log.warning("backlog_not_read", error=str(error))
            return None

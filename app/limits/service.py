"""Reading how far the limits of providers are used, and what they admitted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

from app.catalog.records import DEFAULT_WORKSPACE
from app.db.pool import Database
from app.errors import NotFound
from app.limits import repository
from app.limits.log import LogLine
from app.limits.records import LimitUsage


class LimitService:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage_of(self, provider_ids: Sequence[str]) -> Mapping[str, LimitUsage]:
        """At this moment."""
        async with self._database.connection() as connection:
            return await repository.limit_usage_of(connection, provider_ids)

    async def read_log(
        self,
        names: Sequence[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        window: timedelta = timedelta(0),
    ) -> AsyncGenerator[LogLine, None]:
        """The start log of these providers, or of all, as it is at one moment; it is read as it is consumed.

        With `since`, from one window before it, and with all that had not ended then. Raises NotFound.
        """
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            providers = await repository.providers_of_log(connection, DEFAULT_WORKSPACE)
            for name in names or providers:
                if name not in providers:
                    raise NotFound("LlmProvider", name)
            for name in dict.fromkeys(names or providers):
                for change in await repository.limit_changes_of(connection, providers[name]):
                    yield change
                starts = repository.stream_starts(connection, providers[name], since=since, until=until, window=window)
                async with aclosing(starts):
                    async for start in starts:
                        yield start

"""Reading how far the limits of providers are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.db.pool import Database
from app.limits import repository
from app.limits.records import LimitUsage


class LimitService:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage_of(self, provider_ids: Sequence[str]) -> Mapping[str, LimitUsage]:
        """At this moment."""
        async with self._database.connection() as connection:
            return await repository.limit_usage_of(connection, provider_ids)

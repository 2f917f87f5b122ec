"""How often clients that are turned away make the database count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.db.pool import Connection, Database
from app.gateway.forecasts import Forecasts
from tests.catalog_rows import insert_model


class Counted(Database):
    used = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.used += 1
        async with super().connection() as connection:
            yield connection


async def test_many_that_are_turned_away_at_once_share_one_query_for_each_provider(
    database: Database, database_dsn: str
) -> None:
    async with database.transaction() as connection:
        rows = [await insert_model(connection, provider=name) for name in ("acme", "other")]
    counted = await Counted.connect(database_dsn, size=2)
    forecasts = Forecasts(counted)
    answers = await asyncio.gather(*(forecasts.seconds(row.provider_id, tokens=1) for row in rows * 50))
    assert set(answers) == {1.0}
    assert counted.used == 2
    await counted.close()


async def test_where_the_database_does_not_answer_a_second_is_said(database: Database, database_dsn: str) -> None:
    broken = await Database.connect(database_dsn, size=1)
    await broken.close()
    assert await Forecasts(broken).seconds("acme", tokens=1) == 1.0

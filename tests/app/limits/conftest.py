from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.db.pool import Connection, Database


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.db.pool import Database
from tests.emulator import Emulator
from tests.workers.work import Work, work_for


@pytest.fixture
async def work(database: Database, database_dsn: str, emulator: Emulator) -> AsyncIterator[Work]:
    async with work_for(database, database_dsn, emulator) as work:
        yield work

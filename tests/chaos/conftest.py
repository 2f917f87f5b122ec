from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.db.pool import Database
from tests.chaos.aftermath import Trial, trial_on
from tests.emulator import Emulator


@pytest.fixture
async def trial(database: Database, database_dsn: str, emulator: Emulator) -> AsyncIterator[Trial]:
    async with trial_on(database, database_dsn, emulator) as trial:
        yield trial

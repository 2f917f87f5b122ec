"""While work waits, the permitted rate is used to the full."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.db.pool import Database
from app.limits.repository import read_starts
from app.requests.records import SubmitRequest
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess, request_service, wait_until

WINDOW_SECONDS = 3
REQUESTS_PER_WINDOW = 10
SLACK_SECONDS = 0.2
"""With a window of a minute it is a hundredth, 600 ms. In so short a one it would be less than a clock may be wrong."""


async def test_a_backlog_uses_98_percent_of_the_permitted_starts(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    # Two whole windows: what is lost, is lost at the turn of each.
    await _run(database, database_dsn, emulator, windows=2)


@pytest.mark.soak
async def test_a_backlog_uses_98_percent_of_the_permitted_starts_for_minutes(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    await _run(database, database_dsn, emulator, windows=40)


async def _run(database: Database, database_dsn: str, emulator: Emulator, *, windows: int) -> None:
    async with database.connection() as connection:
        row = await insert_model(
            connection,
            base_url=emulator.url("acme"),
            max_parallel=50,
            requests_per_minute=REQUESTS_PER_WINDOW,
            window_milliseconds=WINDOW_SECONDS * 1000,
            delivery_milliseconds=round(SLACK_SECONDS * 1000),
        )
    async with request_service(database) as service:
        submissions = [SubmitRequest(model=row.ref, input="Hello") for _ in range(REQUESTS_PER_WINDOW * (windows + 2))]
        await service.enqueue(submissions, workspace_id="default")
    wanted = REQUESTS_PER_WINDOW * windows + 1
    with WorkerProcess(database_dsn), WorkerProcess(database_dsn):
        await wait_until(
            database_dsn,
            "(SELECT count(*) FROM request_attempts WHERE status = 'SUCCEEDED') >= $1",
            wanted,
            timeout_seconds=30 + windows * WINDOW_SECONDS,
        )
    async with database.connection() as connection:
        starts = await read_starts(connection, row.provider_id)
    # From the first start to that of the first in the last window: so many windows were used to the full.
    taken = starts[wanted - 1].started_at - starts[0].started_at
    # The slack takes a hundredth of a minute's starts: of the others, a hundredth may be lost.
    utilisation = (wanted - 1) / (REQUESTS_PER_WINDOW * (taken / timedelta(seconds=WINDOW_SECONDS + SLACK_SECONDS)))
    assert 0.99 <= utilisation <= 1.0
    assert all(start.tokens >= 0 for start in starts)

"""The history of limits: written by every edit, in the order of the claims that saw it or did not."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from app.db.migrate import MIGRATIONS, migrate
from app.db.pool import Connection, Database
from app.limits.audit import Audit
from app.limits.repository import limit_changes_of
from app.limits.service import LimitService
from tests.app.limits.queue import Queue

MINUTE = timedelta(minutes=1)


async def history(queue: Queue) -> list[tuple[int, int, int | None]]:
    changes = await limit_changes_of(queue.connection, queue.row.provider_id)
    assert [change.since for change in changes] == sorted(change.since for change in changes)
    return [(change.max_parallel_requests, change.requests_per_minute, change.tokens_per_minute) for change in changes]


async def violations(database: Database, judged_from: datetime | None = None) -> list[tuple[str, int, int]]:
    audit = Audit(window=MINUTE, judged_from=judged_from)
    async for line in LimitService(database).read_log(since=judged_from, window=MINUTE):
        audit.take(line)
    return [
        (found.kind, found.observed, found.limit)
        for audited in audit.providers.values()
        for found in audited.violations
    ]


async def someone_waits_for_a_lock(connection: Connection) -> None:
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not await connection.fetchval(f"SELECT EXISTS ({waits})"):
            pass


async def test_every_change_of_a_limit_is_written_down_and_nothing_else(connection: Connection) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=8, requests_per_minute=60)
    assert await history(queue) == [(8, 60, None)]
    await queue.edit(is_enabled=False, display_name="Other", requests_per_minute=60)
    assert await history(queue) == [(8, 60, None)]
    await queue.edit(max_parallel_requests=2)
    await queue.edit(tokens_per_minute=5000)
    await queue.edit(tokens_per_minute=None, requests_per_minute=30)
    assert await history(queue) == [(8, 60, None), (2, 60, None), (2, 60, 5000), (2, 60, None), (2, 30, None)]
    async with connection.transaction():
        await connection.execute("UPDATE llm_providers SET requests_per_minute = requests_per_minute * 2")
        await connection.execute("UPDATE llm_providers SET requests_per_minute = requests_per_minute * 2")
    assert (await history(queue))[-2:] == [(2, 60, None), (2, 120, None)]


async def test_what_is_written_down_is_not_changed_and_goes_with_its_provider(connection: Connection) -> None:
    queue = await Queue.create(connection, at=None)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE limit_changes SET max_parallel_requests = 1000")
    await connection.execute("DELETE FROM llm_providers WHERE id = $1", queue.row.provider_id)
    assert await history(queue) == []


async def test_a_claim_that_waited_for_an_edit_comes_after_it(database: Database, connection: Connection) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=2)
    await queue.submit(4)
    async with database.connection() as other:
        async with other.transaction():
            await other.execute("UPDATE llm_providers SET max_parallel_requests = 3")
            claiming = asyncio.create_task(queue.claim())
            await someone_waits_for_a_lock(other)
        claim = await claiming
        assert len(claim.requests) == 3
        assert (await limit_changes_of(other, queue.row.provider_id))[-1].since <= claim.requests[0].started_at
    assert await violations(database) == []


async def test_an_edit_that_waited_for_a_claim_comes_after_it(database: Database, connection: Connection) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=3)
    await queue.submit(4)
    async with database.connection() as other:
        async with connection.transaction():
            claim = await queue.claim()
            editing = asyncio.create_task(other.execute("UPDATE llm_providers SET max_parallel_requests = 1"))
            async with database.connection() as third:
                await someone_waits_for_a_lock(third)
        await editing
        assert (await limit_changes_of(other, queue.row.provider_id))[-1].since > claim.requests[0].started_at
    assert len(claim.requests) == 3
    assert await violations(database) == []


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read"])
async def test_limits_that_are_raised_and_lowered_judge_what_they_admitted(
    database: Database, connection: Connection, isolation: str
) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=10, requests_per_minute=2)
    await queue.submit(20)
    admitted = []
    for limit in (5, 1, 7):
        admitted.append(len((await queue.claim()).requests))
        # The second kind is the transaction of `tollgate apply`.
        async with connection.transaction(isolation=isolation):  # type: ignore[arg-type] # a Literal of these
            await queue.edit(requests_per_minute=limit)
    admitted.append(len((await queue.claim()).requests))
    assert admitted == [2, 3, 0, 2]
    assert await violations(database) == []


async def test_a_start_past_the_limit_in_force_is_found(database: Database, connection: Connection) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=3, tokens_per_minute=1000)
    await queue.submit(3, reserved_tokens=300)
    assert len((await queue.claim()).requests) == 3
    await queue.edit(max_parallel_requests=2)
    assert await violations(database) == []
    await connection.execute(
        """
        INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, reserved_tokens)
        VALUES ($1, 4, 'r', 'l', steady_now(), 101)
        """,
        queue.row.provider_id,
    )
    assert await violations(database) == [("parallel", 4, 2), ("tokens", 1001, 1000)]
    assert await violations(database, datetime.now(UTC) + timedelta(hours=1)) == []


async def test_providers_of_before_begin_with_the_limits_that_they_have(
    empty_database_dsn: str, tmp_path: Path
) -> None:
    before = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, before)
    shutil.rmtree(before / "0004_limit_history")
    database = await Database.connect(empty_database_dsn, size=2)
    try:
        await migrate(database, before)
        async with database.connection() as connection:
            queue = await Queue.create(connection, at=None, max_parallel=5)
            await connection.execute("UPDATE llm_providers SET created_at = '2026-01-01 12:00:00'")
            await migrate(database)
            (change,) = await limit_changes_of(connection, queue.row.provider_id)
            assert change.since == datetime(2026, 1, 1, 12, tzinfo=UTC)
            await queue.edit(max_parallel_requests=4)
            assert [limits[0] for limits in await history(queue)] == [5, 4]
    finally:
        await database.close()

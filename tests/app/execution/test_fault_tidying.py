"""What a dead process has left behind is found, and only that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.db.listen import WORK
from app.db.pool import Connection, Database
from app.limits import repository
from tests.app.limits.queue import START, Queue, after


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


async def _is_found(queue: Queue) -> bool:
    return queue.row.provider_id in await repository.providers_to_tidy(queue.connection)


async def test_a_lease_that_ran_out_is_found_until_it_is_taken_back(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [id] = await queue.submit(1)
    await queue.claim(START, lease_seconds=30)
    assert not await _is_found(queue)
    await queue.set_clock(after(30))
    assert await _is_found(queue)
    # A claim that has no room takes back all the same.
    await queue.claim(capacity=0)
    assert (await queue.get(id)).status == "PENDING"
    assert not await _is_found(queue)


async def test_what_is_taken_back_by_one_process_is_announced_to_the_others(
    connection: Connection, database: Database
) -> None:
    queue = await Queue.create(connection)
    await queue.submit(1)
    await queue.claim(START, lease_seconds=30)
    heard: list[str] = []
    async with database.connection() as listening:
        await listening.add_listener(WORK, lambda *arguments: heard.append(str(arguments[-1])))
        await queue.claim(after(30), capacity=0)
        await listening.execute("SELECT 1")
        await listening.reset(timeout=5)
    assert queue.row.provider_id in heard


async def test_a_deadline_that_passed_is_found(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [id] = await queue.submit(1, deadline=after(10))
    await queue.set_clock(after(10))
    assert await _is_found(queue)
    await queue.claim(capacity=0)
    assert (await queue.get(id)).error["code"] == "DEADLINE_EXCEEDED"
    assert not await _is_found(queue)


async def test_what_waited_at_a_process_that_is_gone_is_found(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [id] = await queue.submit(1, owner_id="api-1")
    await connection.execute("INSERT INTO owner_processes VALUES ('api-1', $1)", after(5))
    assert not await _is_found(queue)
    await queue.set_clock(after(5))
    assert await _is_found(queue)
    await queue.claim(capacity=0)
    assert ((await queue.get(id)).status, (await queue.get(id)).error["code"]) == ("FAILED", "LEASE_LOST")
    assert not await _is_found(queue)

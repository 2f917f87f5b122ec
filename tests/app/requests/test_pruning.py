"""Pruning deletes what ended long ago, and changes no limit, no cost and nothing that still runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.db.ids import ids_from, new_id
from app.db.pool import Connection, Database
from app.limits.repository import read_starts
from app.requests import repository
from app.requests.pruning import Pruned, PruningService
from app.requests.records import ModelRequestStatus, Outcome, SubmitRequest
from app.usage.repository import summarize
from tests.app.limits.queue import Queue
from tests.tollgate_process import run_command
from tests.worker_process import request_service

DAY = timedelta(days=1)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


@pytest.fixture
async def queue(connection: Connection) -> Queue:
    return await Queue.create(connection, at=None, max_parallel=1000, tokens_per_minute=1_000_000)


def old_id(days: float) -> str:
    """Of a request that was submitted so long ago."""
    return ids_from(round((time.time() - days * 86_400) * 1000)) + new_id()[9:]


async def submit(queue: Queue, days: float, **values: Any) -> str:
    (id,) = await queue.submit(id=old_id(days), **values)
    return id


async def finish(queue: Queue, outcome: Outcome = Outcome.COMPLETED, **values: Any) -> None:
    await queue.finish((await queue.claim()).requests, outcome, **values)


async def age(connection: Connection, id: str, days: float) -> None:
    """Lets a request have ended so long ago, as its attempts and starts did."""
    await connection.execute(
        "UPDATE model_requests SET finished_at = now() - $2::interval WHERE id = $1", id, timedelta(days=days)
    )


async def old_starts(queue: Queue, *days: float | None, floor: int) -> None:
    """Starts that ended so long ago, a second after they began; None: it began a year ago, and runs still."""
    await queue.connection.execute(
        """
        INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, ended_at, reserved_tokens)
        SELECT $1, place, 'r', 'l', now() - coalesce(age, '365 days') - interval '1 second', now() - age, 100
          FROM unnest($2::interval[]) WITH ORDINALITY AS starts(age, place)
        """,
        queue.row.provider_id,
        [None if age is None else timedelta(days=age) for age in days],
    )
    await queue.connection.execute(
        """
        UPDATE limit_states SET last_sequence = $2, floor_sequence = $3,
                                window_tokens = 100 * ($2::bigint - $3::bigint)
         WHERE provider_id = $1
        """,
        queue.row.provider_id,
        len(days),
        floor,
    )


async def kept(connection: Connection) -> set[str]:
    return {row["id"] for row in await connection.fetch("SELECT id FROM model_requests")}


async def count(connection: Connection, table: str) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_only_requests_that_ended_before_then_are_deleted(
    database: Database, connection: Connection, queue: Queue
) -> None:
    completed = await submit(queue, 100)
    await finish(queue)
    failed = await submit(queue, 100)
    await finish(queue, Outcome.FAILED)
    recent = await submit(queue, 100)
    await finish(queue)
    running = await submit(queue, 100)
    await queue.claim()
    waiting = await submit(queue, 100)
    cancelled = await submit(queue, 100)
    await repository.cancel_request(connection, "default", cancelled)
    for id in (completed, failed, cancelled):
        await age(connection, id, 91)
    await age(connection, recent, 89)

    pruned = await PruningService(database).prune(90 * DAY)
    assert (pruned.requests, pruned.attempts) == (3, 2)
    assert await kept(connection) == {recent, running, waiting}
    assert await queue.attempts(recent) == [(1, "SUCCEEDED")]
    assert await count(connection, "request_attempts") == 1
    again = await PruningService(database).prune(90 * DAY)
    assert (again.requests, again.attempts, again.starts) == (0, 0, 0)


async def test_what_was_charged_and_its_summary_stay(database: Database, connection: Connection, queue: Queue) -> None:
    id = await submit(queue, 100)
    await finish(queue)
    await age(connection, id, 91)
    await connection.execute(
        """
        INSERT INTO ledger_entries (workspace_id, request_id, lease_id, model_ref, unit, quantity, amount, currency,
                                    is_estimated, charged_at)
        SELECT 'default', $1, lease_id, 'acme:chat-1', unit, 100, 0.000000000000000001, 'USD', false, now()
          FROM request_attempts, unnest('{INPUT_TOKENS,OUTPUT_TOKENS}'::"UsageUnit"[]) AS unit
        """,
        id,
    )

    async def summary() -> list[tuple[Any, ...]]:
        rows = await summarize(connection, "default", model_ref=None, since=None, until=None)
        return [tuple(row) for row in rows]

    before = await summary()
    entries = await connection.fetch("SELECT * FROM ledger_entries ORDER BY unit")
    assert (len(before), len(entries)) == (3, 2)
    assert (await PruningService(database).prune(90 * DAY)).requests == 1
    assert await kept(connection) == set()
    assert await summary() == before
    assert await connection.fetch("SELECT * FROM ledger_entries ORDER BY unit") == entries


async def test_starts_that_a_limit_still_counts_or_that_run_stay(
    database: Database, connection: Connection, queue: Queue
) -> None:
    await old_starts(queue, 200, None, 100, 91, 89, 1, 100, floor=6)
    pruned = await PruningService(database).prune(90 * DAY)
    assert pruned.starts == 3
    assert [start.sequence for start in await read_starts(connection, queue.row.provider_id)] == [2, 5, 6, 7]


async def test_limits_count_after_pruning_as_before(database: Database, connection: Connection, queue: Queue) -> None:
    await queue.edit(requests_per_minute=4, tokens_per_minute=1000)
    await old_starts(queue, 300, 200, 150, floor=1)
    await queue.submit(3)
    assert len((await queue.claim(capacity=2)).requests) == 2
    pruned = await PruningService(database).prune(timedelta(hours=1))
    assert pruned.starts == 3
    state = "SELECT last_sequence, floor_sequence, window_tokens FROM limit_states"
    assert tuple(await connection.fetchrow(state) or ()) == (5, 3, 200)
    assert len((await queue.claim()).requests) == 1
    assert tuple(await connection.fetchrow(state) or ()) == (6, 3, 300)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
async def test_batches_find_what_a_whole_run_finds(
    database: Database, connection: Connection, queue: Queue, batch: int
) -> None:
    old = [await submit(queue, 100 - number) for number in range(7)]
    await finish(queue)
    for id in (old[0], old[1], old[3], old[6]):
        await age(connection, id, 91)
    await connection.execute("DELETE FROM provider_starts")
    await old_starts(queue, 200, 1, 150, 100, None, 91, floor=6)
    told: list[Pruned] = []
    service = PruningService(database)
    dry = await service.prune(90 * DAY, dry_run=True, batch=batch)
    assert (dry.requests, dry.attempts, dry.starts) == (4, 4, 4)
    assert len(await kept(connection)) == 7
    assert len(await read_starts(connection, queue.row.provider_id)) == 6
    done = await service.prune(90 * DAY, batch=batch, tell=lambda pruned: told.append(replace(pruned)))
    assert (done.requests, done.attempts, done.starts) == (4, 4, 4)
    assert await kept(connection) == {old[2], old[4], old[5]}
    assert [start.sequence for start in await read_starts(connection, queue.row.provider_id)] == [2, 5]
    assert told[-1] == done
    assert all(later.requests - earlier.requests <= batch for earlier, later in pairwise(told))


async def test_claims_and_finishes_go_on_beside_it(database: Database, connection: Connection, queue: Queue) -> None:
    old = [await submit(queue, 100) for _ in range(50)]
    await finish(queue)
    for id in old:
        await age(connection, id, 91)
    new = set(await queue.submit(50))

    async def work() -> None:
        while claimed := (await queue.claim(capacity=2)).requests:
            await queue.finish(claimed, settled_tokens=1)

    service = PruningService(database)
    first, second, _ = await asyncio.gather(
        service.prune(90 * DAY, batch=2), service.prune(90 * DAY, batch=3), asyncio.create_task(work())
    )
    assert await kept(connection) == new
    assert first.requests + second.requests >= 50
    assert await connection.fetchval("SELECT count(*) FROM model_requests WHERE status = 'COMPLETED'") == 50


async def test_requests_can_be_kept(database: Database, connection: Connection, queue: Queue) -> None:
    id = await submit(queue, 100)
    await finish(queue)
    await age(connection, id, 91)
    await connection.execute("DELETE FROM provider_starts")
    await old_starts(queue, 91, floor=1)
    pruned = await PruningService(database).prune(90 * DAY, keep_requests=True)
    assert (pruned.requests, pruned.attempts, pruned.starts) == (0, 0, 1)
    assert await kept(connection) == {id}


async def test_the_idempotency_key_of_a_deleted_request_is_free_again(
    database: Database, connection: Connection, queue: Queue
) -> None:
    submission = SubmitRequest(
        model=queue.row.ref, messages=[{"role": "user", "content": "Hello"}], idempotency_key="order-1"
    )
    await queue.edit(base_url="http://localhost/v1")
    async with request_service(database) as service:
        first = await service.submit(submission, workspace_id="default")
        assert (await service.submit(submission, workspace_id="default")).id == first.id
        await repository.cancel_request(connection, "default", first.id)
        # Nothing but time makes it old: an id says when it was made.
        await connection.execute("UPDATE model_requests SET id = $1", old_id(100))
        await age(connection, (await kept(connection)).pop(), 91)
        await PruningService(database).prune(90 * DAY)
        second = await service.submit(submission, workspace_id="default")
    assert second.id != first.id
    assert second.status is ModelRequestStatus.PENDING


async def test_the_command_says_what_it_deletes(
    database_dsn: str, connection: Connection, queue: Queue, tmp_path: Path
) -> None:
    id = await submit(queue, 100)
    await finish(queue)
    await age(connection, id, 91)

    async def prune(*arguments: str) -> tuple[int, str, str]:
        ended = await asyncio.to_thread(
            run_command, "prune", *arguments, data_dir=tmp_path / "data", DATABASE_URL=database_dsn
        )
        return ended.returncode, ended.stdout, ended.stderr

    counts = ": requests 1, attempts 1, starts 0.\n"
    code, output, errors = await prune("--older-than", "90d", "--dry-run")
    assert (code, errors) == (0, "")
    assert output.startswith("Would delete what ended before 20")
    assert output.endswith(counts)
    assert await kept(connection) == {id}
    code, output, errors = await prune("--older-than", "90d", "--batch", "10")
    assert (code, errors) == (0, "")
    assert output.startswith("Deleted what ended before 20")
    assert output.endswith(counts)
    assert await kept(connection) == set()

    for text, bound in (("90", "a whole number of s, m, h, d or w"), ("59m", "at least 1h"), ("-1d", "a whole number")):
        code, _, errors = await prune("--older-than", text)
        assert code == 2
        assert errors.startswith(f"tollgate: --older-than must be {bound}")
        assert errors.count("\n") == 1
    code, _, errors = await prune()
    assert code == 2
    assert "--older-than" in errors


def test_ids_sort_by_the_time_that_bounds_them() -> None:
    before = time.time_ns() // 1_000_000
    id = new_id()
    after = time.time_ns() // 1_000_000 + 1
    assert ids_from(before) < id < ids_from(after)
    assert ids_from(0) < ids_from(1) < ids_from(before)

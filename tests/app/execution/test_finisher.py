"""The writer of results: one that cannot be stored neither stays open nor holds up the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from app.db.pool import Connection, Database
from app.execution.clock import SteadyClock
from app.execution.finisher import Finisher
from app.prices.records import CostReceipt, Usage
from app.requests.records import AttemptResult, ModelRequestStatus, Outcome
from tests.app.limits.queue import Queue
from tests.workers.proxy import proxy_to

FREE = CostReceipt(Decimal(0), "USD", ())


@dataclass
class Writing:
    queue: Queue
    finisher: Finisher
    connection: Connection

    async def claimed(self, count: int, **values: Any) -> list[AttemptResult]:
        await self.queue.submit(count)
        claim = await self.queue.claim()
        return [
            AttemptResult(request_id=one.request_id, lease_id=one.lease_id, outcome=Outcome.COMPLETED, **values)
            for one in claim.requests
        ]

    async def finish(self, *results: AttemptResult) -> list[ModelRequestStatus | None]:
        async with asyncio.timeout(20):
            return list(await asyncio.gather(*map(self.finisher.finish, results)))


@pytest.fixture
async def writing(database: Database) -> AsyncIterator[Writing]:
    finisher = Finisher(database, SteadyClock(database, lease_seconds=30))
    finisher.start()
    async with database.connection() as connection:
        yield Writing(await Queue.create(connection, at=None, max_parallel=1000), finisher, connection)
    await finisher.stop()


async def test_results_are_written_in_groups(writing: Writing) -> None:
    results = await writing.claimed(100, output_text="Hi")
    assert await writing.finish(*results) == ["COMPLETED"] * 100


async def test_a_result_under_a_lost_lease_is_not_written(writing: Writing) -> None:
    [result] = await writing.claimed(1)
    assert await writing.finish(result) == ["COMPLETED"]
    assert await writing.finish(result) == [None]


@pytest.mark.parametrize(
    "values",
    [
        {"output": {"choices": ["\0"]}},
        {"output_text": "\0"},
        {"finish_reason": "\0"},
        {"output_text": "\ud800"},
    ],
)
async def test_an_answer_that_cannot_be_stored_fails_its_request_and_keeps_its_cost(
    writing: Writing, values: dict[str, Any]
) -> None:
    [poisoned] = await writing.claimed(1, usage=Usage(7, 5), cost=FREE, settled_tokens=12, **values)
    others = await writing.claimed(5, output_text="Hi")
    assert await writing.finish(poisoned, *others) == ["FAILED", *["COMPLETED"] * 5]
    request = await writing.queue.get(poisoned.request_id)
    assert request.error["code"] == "INVALID_RESPONSE"
    assert "cannot be stored" in request.error["message"]
    assert request.input_tokens == 7
    assert request.cost_total == Decimal(0)


async def test_counts_that_no_column_holds_fail_their_request_and_leave_the_reservation(writing: Writing) -> None:
    [poisoned] = await writing.claimed(1, usage=Usage(2**40, 0), cost=FREE, settled_tokens=2**40)
    assert await writing.finish(poisoned) == ["FAILED"]
    request = await writing.queue.get(poisoned.request_id)
    assert (request.status, request.input_tokens) == ("FAILED", None)
    assert await writing.connection.fetchval("SELECT window_tokens FROM limit_states") == 100


async def test_the_writer_outlives_a_result_that_cannot_be_written_at_all(writing: Writing) -> None:
    [hopeless] = await writing.claimed(1, retry_seconds="soon", http_status="two hundred")
    others = await writing.claimed(2)
    assert await writing.finish(hopeless, *others) == [None, "COMPLETED", "COMPLETED"]
    assert (await writing.queue.get(hopeless.request_id)).status == "PROCESSING"


async def test_killed_connections_delay_a_result_and_do_not_lose_it(writing: Writing) -> None:
    results = await writing.claimed(20, output_text="Hi")
    await writing.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    assert await writing.finish(*results) == ["COMPLETED"] * 20
    assert await writing.connection.fetchval("SELECT count(*) FROM request_attempts") == 20


async def test_a_result_whose_commit_was_not_answered_is_not_taken_for_lost(database: Database) -> None:
    async with proxy_to(database.dsn) as proxy, database.connection() as connection:
        behind = await Database.connect(proxy.dsn, size=1)
        finisher = Finisher(behind, SteadyClock(behind, lease_seconds=30))
        finisher.start()
        writing = Writing(await Queue.create(connection, at=None), finisher, connection)
        # What a first statement prepares is answered, too.
        assert await writing.finish(*await writing.claimed(1)) == ["COMPLETED"]
        [completed] = await writing.claimed(1, output_text="Hi")
        proxy.lose_next_answer()
        assert await writing.finish(completed) == ["COMPLETED"]
        await writing.queue.submit(1)
        [again] = (await writing.queue.claim()).requests
        to_retry = AttemptResult(request_id=again.request_id, lease_id=again.lease_id, outcome=Outcome.RETRY)
        proxy.lose_next_answer()
        assert await writing.finish(to_retry) == ["PENDING"]
        assert await writing.queue.attempts(completed.request_id) == [(1, "SUCCEEDED")]
        await finisher.stop()
        await behind.close()

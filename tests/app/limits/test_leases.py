"""Leases: renewed, lost, rescued, and the fence that keeps a late worker from writing."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from app.db.pool import Connection, Database
from app.db.rows import ModelPrice, UsageUnit
from app.limits import repository
from app.limits.records import ClaimedRequest
from app.prices.records import CostLine, CostReceipt, Usage
from app.requests.records import AttemptError, Outcome
from tests.app.limits.queue import START, Queue, after

INSTANT = 0.000001
LEASE = 30.0
ERROR = AttemptError("PROVIDER_UNAVAILABLE", "try later", retryable=True, http_status=503)


def charge(total: str = "0.000025") -> dict[str, Any]:
    """A usage and its receipt, as a completed attempt has them."""
    price = ModelPrice("price-1", "model-1", UsageUnit.INPUT_TOKENS, Decimal("2.5"), "USD", START, START)
    line = CostLine(UsageUnit.INPUT_TOKENS, 10, price, Decimal(total))
    return {"usage": Usage(10, 0), "cost": CostReceipt(Decimal(total), "USD", (line,)), "settled_tokens": 10}


async def claimed(queue: Queue, count: int = 1, **values: Any) -> list[ClaimedRequest]:
    await queue.submit(count, **values)
    return list((await queue.claim(START, lease_seconds=LEASE)).requests)


async def ledger(connection: Connection) -> list[tuple[str, Decimal]]:
    rows = await connection.fetch("SELECT request_id, amount FROM ledger_entries ORDER BY request_id")
    return [(row["request_id"], row["amount"]) for row in rows]


async def state(connection: Connection) -> list[asyncpg.Record]:
    tables = ("model_requests", "request_attempts", "provider_starts", "limit_states", "ledger_entries")
    return [row for table in tables for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]


async def test_a_lease_that_runs_out_puts_its_request_back(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    assert await queue.claimed_ids(after(LEASE - INSTANT)) == set()
    claim = await queue.claim(after(LEASE))
    assert [(one.request_id, one.attempt) for one in claim.requests] == [(held.request_id, 2)]
    assert claim.requests[0].lease_id != held.lease_id
    assert await queue.attempts(held.request_id) == [(1, "LOST")]
    starts = await repository.read_starts(connection, queue.row.provider_id)
    assert [(start.ended_at, start.tokens) for start in starts] == [(after(LEASE), 100), (None, 100)]


async def test_a_request_whose_every_lease_ran_out_fails(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue, max_attempts=2)
    await queue.claim(after(LEASE), lease_seconds=LEASE)
    claim = await queue.claim(after(2 * LEASE))
    assert claim.requests == ()
    request = await queue.get(held.request_id)
    assert (request.status, request.finished_at, request.error["code"]) == ("FAILED", after(2 * LEASE), "LEASE_LOST")
    assert await queue.attempts(held.request_id) == [(1, "LOST"), (2, "LOST")]


async def test_a_request_to_be_cancelled_ends_with_its_lease(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    assert await connection.fetchval("SELECT cancel_request('default', $1)", held.request_id) == "PROCESSING"
    assert (await queue.claim(after(LEASE))).requests == ()
    assert (await queue.get(held.request_id)).status == "CANCELLED"


async def test_a_renewed_lease_is_kept(connection: Connection) -> None:
    queue = await Queue.create(connection)
    held = await claimed(queue, 2)
    await queue.set_clock(after(20))
    assert await queue.renew(held, lease_seconds=LEASE) == {one.request_id for one in held}
    assert await queue.claimed_ids(after(20 + LEASE - INSTANT)) == set()
    assert len(await queue.claimed_ids(after(20 + LEASE))) == 2


async def test_a_lease_that_has_run_out_is_not_renewed(connection: Connection) -> None:
    queue = await Queue.create(connection)
    held = await claimed(queue)
    await queue.set_clock(after(LEASE))
    assert await queue.renew(held) == set()
    assert len(await queue.claimed_ids()) == 1


async def test_a_database_clock_that_was_set_back_loses_no_renewed_lease(connection: Connection) -> None:
    """The provider's clock stands still a day ahead of the server's; leases run on the provider's."""
    queue = await Queue.create(connection)
    held = await claimed(queue)
    assert len(await queue.renew(held, lease_seconds=LEASE)) == 1
    assert await queue.claimed_ids() == set()
    assert len(await queue.renew(held, lease_seconds=LEASE)) == 1


async def test_nobody_renews_another_s_lease(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    renewed = await repository.renew_leases(connection, [(held.request_id, "other")], lease_seconds=60)  # type: ignore[list-item]  # a lease id that was never given
    assert renewed == []


async def test_a_renewal_tells_of_a_cancellation(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await connection.fetchval("SELECT cancel_request('default', $1)", held.request_id)
    [lease] = await repository.renew_leases(connection, [(held.request_id, held.lease_id)], lease_seconds=60)
    assert lease.cancel_requested


# The fence ------------------------------------------------------------------


async def test_a_finish_under_a_lost_lease_changes_nothing_and_charges_nothing(connection: Connection) -> None:
    queue = await Queue.create(connection)
    lost = await claimed(queue)
    new = (await queue.claim(after(LEASE))).requests
    before = await state(connection)
    assert await queue.finish(lost, output={"late": True}, **charge()) == {}
    assert await state(connection) == before
    assert await queue.finish(new, **charge()) == {new[0].request_id: "COMPLETED"}
    assert await ledger(connection) == [(new[0].request_id, Decimal("0.000025"))]


async def test_a_finish_repeated_charges_once(connection: Connection) -> None:
    queue = await Queue.create(connection)
    held = await claimed(queue)
    assert len(await queue.finish(held, **charge())) == 1
    before = await state(connection)
    assert await queue.finish(held, **charge("99")) == {}
    assert await state(connection) == before


async def test_a_worker_that_is_late_but_not_yet_replaced_may_still_finish(connection: Connection) -> None:
    queue = await Queue.create(connection)
    held = await claimed(queue)
    await queue.set_clock(after(LEASE + 5))
    assert await queue.finish(held, **charge()) == {held[0].request_id: "COMPLETED"}


async def test_one_lost_lease_does_not_keep_the_others_of_a_group_from_finishing(connection: Connection) -> None:
    queue = await Queue.create(connection)
    held = await claimed(queue, 3)
    await queue.finish(held[:1])
    assert set(await queue.finish(held, **charge())) == {one.request_id for one in held[1:]}
    assert len(await ledger(connection)) == 2


# Ends -----------------------------------------------------------------------


async def test_a_completed_request_holds_its_answer_usage_and_cost(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await queue.finish([held], output={"choices": []}, output_text="Hi", finish_reason="stop", **charge())
    request = await queue.get(held.request_id)
    assert (request.status, request.output, request.output_text) == ("COMPLETED", {"choices": []}, "Hi")
    assert (request.input_tokens, request.usage_estimated) == (10, False)
    assert (request.cost_total, request.currency, request.error) == (Decimal("0.000025"), "USD", None)
    assert (request.lease_id, request.worker_id, request.start_sequence) == (None, None, None)
    assert await queue.attempts(held.request_id) == [(1, "SUCCEEDED")]


async def test_a_failed_request_holds_its_error(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await queue.finish([held], Outcome.FAILED, error=ERROR)
    request = await queue.get(held.request_id)
    assert (request.status, request.cost_total) == ("FAILED", None)
    assert request.error == {
        "code": "PROVIDER_UNAVAILABLE",
        "message": "try later",
        "retryable": True,
        "httpStatus": 503,
    }


async def test_a_retry_spends_an_attempt_and_keeps_its_error_in_the_attempt(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await queue.finish([held], Outcome.RETRY, error=ERROR, retry_seconds=3)
    request = await queue.get(held.request_id)
    assert (request.status, request.error, request.attempt_count) == ("PENDING", None, 1)
    assert request.available_at == after(3)
    [again] = (await queue.claim(after(3))).requests
    assert again.attempt == 2
    assert await queue.attempts(held.request_id) == [(1, "FAILED")]


async def test_a_release_gives_the_attempt_back(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue, max_attempts=1)
    await queue.finish([held], Outcome.RELEASED, settled_tokens=0)
    [again] = (await queue.claim()).requests
    assert (again.request_id, again.attempt) == (held.request_id, 1)
    assert await queue.attempts(held.request_id) == [(1, "RELEASED")]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.RELEASED])
async def test_a_request_to_be_cancelled_is_not_tried_again(connection: Connection, outcome: Outcome) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await connection.fetchval("SELECT cancel_request('default', $1)", held.request_id)
    assert await queue.finish([held], outcome) == {held.request_id: "CANCELLED"}


async def test_an_answer_that_came_before_the_cancellation_counts(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [held] = await claimed(queue)
    await connection.fetchval("SELECT cancel_request('default', $1)", held.request_id)
    assert await queue.finish([held], **charge()) == {held.request_id: "COMPLETED"}


# History --------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE provider_starts SET started_at = started_at - interval '1 minute'",
        "UPDATE provider_starts SET reserved_tokens = 0, ended_at = now()",
        "UPDATE provider_starts SET sequence = 99, ended_at = now()",
        "UPDATE provider_starts SET request_id = 'other', ended_at = now()",
        "UPDATE provider_starts SET settled_tokens = 0",
    ],
)
async def test_a_start_is_never_rewritten(connection: Connection, statement: str) -> None:
    queue = await Queue.create(connection)
    await claimed(queue)
    with pytest.raises(asyncpg.CheckViolationError, match="append-only"):
        await connection.execute(statement)


async def test_a_settled_start_is_not_settled_again(connection: Connection) -> None:
    queue = await Queue.create(connection)
    await queue.finish(await claimed(queue), **charge())
    with pytest.raises(asyncpg.CheckViolationError, match="append-only"):
        await connection.execute("UPDATE provider_starts SET settled_tokens = 0, ended_at = now()")


@pytest.mark.parametrize("statement", ["UPDATE ledger_entries SET amount = 0", "DELETE FROM ledger_entries"])
async def test_a_ledger_line_is_never_changed(connection: Connection, statement: str) -> None:
    queue = await Queue.create(connection)
    await queue.finish(await claimed(queue), **charge())
    with pytest.raises(asyncpg.CheckViolationError, match="append-only"):
        await connection.execute(statement)


async def test_renewing_and_finishing_the_same_requests_at_once_never_deadlocks(database: Database) -> None:
    """Both lock many requests: in one order, whatever order they were given in."""
    async with database.connection() as connection:
        queue = await Queue.create(connection, max_parallel=100)
        held = await claimed(queue, 100)

    async def renew() -> None:
        async with database.connection() as connection:
            for _ in range(20):
                await Queue(connection, queue.row).renew(list(reversed(held)))

    async def finish(part: list[ClaimedRequest]) -> int:
        async with database.connection() as connection:
            return len(await Queue(connection, queue.row).finish(part))

    finished = await asyncio.gather(renew(), renew(), *(finish(held[start::4]) for start in range(4)))
    assert sum(count or 0 for count in finished) == 100

"""The ends of attempts: what becomes of each request, of its provider's limits, and of what others wrote meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from app.db.listen import WORK
from app.db.pool import Connection, Database
from app.limits.records import ClaimedRequest
from app.requests import repository as requests
from app.requests.records import AttemptError, AttemptResult, Outcome
from tests.app.limits.queue import START, Queue, after
from tests.app.limits.test_leases import LEASE, charge, ledger
from tests.catalog_rows import CatalogRow, insert_model

ERROR = AttemptError("PROVIDER_UNAVAILABLE", "try later", retryable=True, http_status=503)


@dataclass
class Two:
    """Two providers with a queue each; requests of the first may go on at the second."""

    first: Queue
    second: Queue

    async def claimed(self, count: int = 1, **values: Any) -> list[ClaimedRequest]:
        await self.first.submit(count, fallbacks=self.second.row.model_id, **values)
        return list((await self.first.claim(START, lease_seconds=LEASE)).requests)

    async def state(self, queue: Queue) -> tuple[int, int, bool]:
        row = await queue.connection.fetchrow(
            "SELECT window_tokens, consecutive_failures, circuit_open_until FROM limit_states WHERE provider_id = $1",
            queue.row.provider_id,
        )
        assert row is not None
        return row[0], row[1], row[2] is not None


@pytest.fixture
async def two(connection: Connection) -> Two:
    queues = [Queue(connection, await insert_model(connection, provider=name)) for name in ("acme", "other")]
    for queue in queues:
        await queue.set_clock(START)
    return Two(*queues)


@pytest.fixture
async def woken(database: Database, two: Two) -> AsyncIterator[Callable[[], Awaitable[set[str]]]]:
    """The providers whose workers were woken since."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def told() -> set[str]:
        await two.first.connection.execute(f"NOTIFY {WORK}, 'end'")
        return {provider_id async for provider_id in _until_end(heard)}

    async with database.connection() as listening:
        await listening.add_listener(WORK, lambda *notice: heard.put_nowait(str(notice[3])))
        yield told
        await listening.reset()


async def _until_end(heard: asyncio.Queue[str]) -> AsyncIterator[str]:
    while (payload := await heard.get()) != "end":
        yield payload


def result(held: ClaimedRequest, outcome: Outcome, **values: Any) -> AttemptResult:
    return AttemptResult(request_id=held.request_id, lease_id=held.lease_id, outcome=outcome, **values)


async def _models(two: Two, request_id: str) -> tuple[Any, ...]:
    request = await two.first.get(request_id)
    return request.status, request.provider_id, request.model_id, request.model_ref, request.fallback_model_ids


def _of(row: CatalogRow) -> tuple[str, str, str]:
    return row.provider_id, row.model_id, row.ref


# Another model --------------------------------------------------------------


async def test_a_request_goes_on_at_another_provider_whose_workers_are_woken(
    two: Two, woken: Callable[[], Awaitable[set[str]]]
) -> None:
    [held] = await two.claimed(max_attempts=1)
    await woken()
    finished = await two.first.finish(
        [held], Outcome.FALLBACK, attempts_more=3, error=ERROR, provider_fault=True, settled_tokens=0
    )
    assert finished == {held.request_id: "PENDING"}
    assert await woken() == {two.second.row.provider_id}
    assert await _models(two, held.request_id) == ("PENDING", *_of(two.second.row), ())
    assert (await two.first.get(held.request_id)).max_attempts == 4
    # The failure and the tokens are those of the provider that was called.
    assert (await two.state(two.first), await two.state(two.second)) == ((0, 1, False), (0, 0, False))
    [again] = (await two.second.claim()).requests
    assert (again.request_id, again.attempt, again.has_fallback) == (held.request_id, 2, False)
    attempts = (await requests.attempts_of(two.first.connection, [held.request_id]))[held.request_id]
    assert [(attempt.model_ref, attempt.status) for attempt in attempts] == [(two.first.row.ref, "FAILED")]


async def test_what_a_broken_off_call_cost_is_charged_to_the_model_that_was_called(two: Two) -> None:
    [held] = await two.claimed()
    await two.first.finish([held], Outcome.FALLBACK, attempts_more=3, error=ERROR, **charge())
    entries = (await requests.ledger_entries_of(two.first.connection, [held.request_id]))[held.request_id]
    assert {entry.model_ref for entry in entries} == {two.first.row.ref}
    assert (await two.state(two.first))[0] == 10


async def test_a_request_without_another_usable_model_fails_where_it_is(two: Two) -> None:
    [held] = await two.claimed()
    await two.second.edit(is_enabled=False)
    assert await two.first.finish([held], Outcome.FALLBACK, error=ERROR) == {held.request_id: "FAILED"}
    assert await _models(two, held.request_id) == ("FAILED", *_of(two.first.row), (two.second.row.model_id,))
    assert (await two.first.get(held.request_id)).error["code"] == ERROR.code


async def test_a_request_to_be_cancelled_stays_with_the_model_that_was_called(two: Two) -> None:
    [held] = await two.claimed()
    await requests.cancel_request(two.first.connection, "default", held.request_id)
    finished = await two.first.finish([held], Outcome.FALLBACK, attempts_more=3, error=ERROR)
    assert finished == {held.request_id: "CANCELLED"}
    assert await _models(two, held.request_id) == ("CANCELLED", *_of(two.first.row), (two.second.row.model_id,))
    request = await two.first.get(held.request_id)
    assert (request.max_attempts, request.error) == (held.max_attempts, None)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.RETRY, Outcome.RELEASED, Outcome.FAILED])
async def test_a_late_result_in_the_same_group_does_not_move_the_request(two: Two, outcome: Outcome) -> None:
    """One process may hold both leases: it froze, lost the first, and claimed the request anew."""
    [late] = await two.claimed()
    [held] = (await two.first.claim(after(LEASE), lease_seconds=LEASE)).requests
    connection = two.first.connection
    group = [result(late, Outcome.FALLBACK, attempts_more=3, error=ERROR), result(held, outcome)]
    status = "PENDING" if outcome in (Outcome.RETRY, Outcome.RELEASED) else outcome
    assert await requests.finish_requests(connection, group) == {held.request_id: status}
    assert await _models(two, held.request_id) == (status, *_of(two.first.row), (two.second.row.model_id,))


# Groups ---------------------------------------------------------------------


async def test_each_provider_of_a_group_is_settled_and_judged_by_its_own(
    two: Two, woken: Callable[[], Awaitable[set[str]]]
) -> None:
    failing = await two.claimed(5)
    await two.second.submit(3)
    succeeding = list((await two.second.claim(START, capacity=2)).requests)
    await woken()
    group = [result(held, Outcome.RETRY, provider_fault=True, settled_tokens=0) for held in failing]
    group += [result(held, Outcome.COMPLETED, **charge()) for held in succeeding]
    lost = AttemptResult(
        request_id=failing[0].request_id, lease_id="lost", outcome=Outcome.COMPLETED, provider_fault=True
    )
    finished = await requests.finish_requests(two.first.connection, [lost, *group[::-1]])
    assert finished == {one.request_id: "PENDING" if one in group[:5] else "COMPLETED" for one in group}
    assert await two.state(two.first) == (0, 5, True)
    assert await two.state(two.second) == (20 + 0, 0, False)
    assert len(await ledger(two.first.connection)) == 2
    assert await woken() == {two.first.row.provider_id, two.second.row.provider_id}


async def test_a_success_and_a_failure_at_once_close_the_circuit(two: Two) -> None:
    held = await two.claimed(6)
    await two.first.finish(held[:4], Outcome.FAILED, provider_fault=True)
    group = [result(held[4], Outcome.FAILED, provider_fault=True), result(held[5], Outcome.COMPLETED)]
    await requests.finish_requests(two.first.connection, group)
    assert (await two.state(two.first))[1:] == (0, False)


async def test_a_settlement_counts_only_in_the_window_of_its_own_provider(two: Two) -> None:
    [old] = await two.claimed()
    await two.second.submit(1)
    [recent] = (await two.second.claim(after(61))).requests
    # The window of the first has passed over its start.
    await two.first.submit(1)
    await two.first.claim(after(61), capacity=1, lease_seconds=LEASE)
    before = await two.state(two.first)
    finished = await requests.finish_requests(
        two.first.connection,
        [result(old, Outcome.COMPLETED, settled_tokens=7), result(recent, Outcome.COMPLETED, settled_tokens=7)],
    )
    # Whose lease was over was taken back by that claim.
    assert finished == {recent.request_id: "COMPLETED"}
    assert await two.state(two.first) == before
    assert (await two.state(two.second))[0] == 7


async def test_only_the_chunks_of_what_ended_are_removed(two: Two) -> None:
    ended, lost = await two.claimed(2, is_streamed=True)
    connection = two.first.connection
    await connection.execute("UPDATE model_requests SET lease_id = 'of another' WHERE id = $1", lost.request_id)
    await connection.executemany(
        "INSERT INTO request_chunks (request_id, lease_id, sequence, chunks) VALUES ($1, $2, 0, '[]')",
        [(ended.request_id, ended.lease_id), (ended.request_id, "of before"), (lost.request_id, "of another")],
    )
    await two.first.finish([ended, lost])
    rows = await connection.fetch("SELECT request_id, lease_id FROM request_chunks")
    assert [tuple(row) for row in rows] == [(lost.request_id, "of another")]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.RELEASED, Outcome.FALLBACK])
async def test_what_waits_again_begins_its_stream_anew(two: Two, outcome: Outcome) -> None:
    [held] = await two.claimed(is_streamed=True)
    await two.first.connection.execute(
        "INSERT INTO request_chunks (request_id, lease_id, sequence, chunks) VALUES ($1, $2, 0, '[]')",
        held.request_id,
        held.lease_id,
    )
    await two.first.finish([held], outcome)
    assert await two.first.connection.fetchval("SELECT count(*) FROM request_chunks") == 0


async def test_a_request_whose_provider_was_deleted_still_ends(two: Two) -> None:
    [held] = await two.claimed()
    await two.first.connection.execute("DELETE FROM llm_models WHERE id = $1", two.first.row.model_id)
    await two.first.connection.execute("DELETE FROM llm_providers WHERE id = $1", two.first.row.provider_id)
    finished = await two.first.finish([held], Outcome.FAILED, error=ERROR, provider_fault=True)
    assert finished == {held.request_id: "FAILED"}


# The server's clock was set back --------------------------------------------


@pytest.mark.parametrize("end", ["finished", "retried and finished", "lost", "cancelled", "overdue", "abandoned"])
async def test_no_request_ends_before_it_began_though_the_server_s_clock_was_set_back(two: Two, end: str) -> None:
    connection = two.first.connection
    queue = two.first
    owner_id = "gone" if end == "abandoned" else None
    deadline = START - timedelta(days=3) if end == "overdue" else None
    [id] = await queue.submit(max_attempts=1 if end == "lost" else 3, owner_id=owner_id, deadline=deadline)
    # That day was ahead of its time, and was noticed and corrected.
    await connection.execute("UPDATE model_requests SET created_at = $2 WHERE id = $1", id, after(0))
    held: list[ClaimedRequest] = []
    if end in ("finished", "retried and finished", "lost"):
        held = list((await queue.claim(START, lease_seconds=LEASE)).requests)
    await connection.execute("UPDATE steady_clock SET behind_microseconds = -2 * 86400000000")
    if end == "retried and finished":
        await queue.finish(held, Outcome.RETRY)
        held = list((await queue.claim(after(1), lease_seconds=LEASE)).requests)
    if held and end != "lost":
        await queue.finish(held)
    elif end == "cancelled":
        await requests.cancel_request(connection, "default", id)
    else:
        await queue.claim(after(LEASE + 1))
    request = await queue.get(id)
    assert request.finished_at is not None
    assert request.created_at <= (request.started_at or request.created_at) <= request.finished_at
    attempts = (await requests.attempts_of(connection, [id])).get(id, [])
    assert all(request.created_at <= attempt.started_at <= attempt.finished_at for attempt in attempts)
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))

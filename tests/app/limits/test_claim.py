"""claim_requests: what a provider's limits admit, to the microsecond."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from app.db.listen import REQUESTS, WORK
from app.db.pool import Connection, Database
from app.limits import repository
from app.limits.replay import LimitSetting, replay
from app.requests.records import Outcome
from tests.app.limits.queue import START, Queue, after
from tests.catalog_rows import insert_model

WINDOW = 60.6
INSTANT = 0.000001
EVER = datetime(2000, 1, 1, tzinfo=UTC)


async def test_no_more_run_at_once_than_are_allowed(connection: Connection) -> None:
    queue = await Queue.create(connection, max_parallel=3)
    await queue.submit(10)
    first = await queue.claim()
    assert len(first.requests) == 3
    assert await queue.claimed_ids() == set()
    await queue.finish(first.requests[:2])
    assert len(await queue.claimed_ids()) == 2


async def test_a_claim_takes_no_more_than_its_worker_has_room_for(connection: Connection) -> None:
    queue = await Queue.create(connection)
    await queue.submit(5)
    assert len(await queue.claimed_ids(capacity=2)) == 2
    assert await queue.claimed_ids(capacity=0) == set()


async def test_a_start_leaves_the_window_at_its_exact_end(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2)
    await queue.submit(6)
    assert len(await queue.claimed_ids(START)) == 2
    assert await queue.claimed_ids(after(WINDOW - INSTANT)) == set()
    assert len(await queue.claimed_ids(after(WINDOW))) == 2


async def test_the_window_slides(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2)
    await queue.submit(6)
    assert len(await queue.claimed_ids(START, capacity=1)) == 1
    assert len(await queue.claimed_ids(after(30))) == 1
    assert await queue.claimed_ids(after(WINDOW - INSTANT)) == set()
    assert len(await queue.claimed_ids(after(WINDOW))) == 1
    assert len(await queue.claimed_ids(after(30 + WINDOW))) == 1


async def test_ended_calls_stay_counted_for_the_whole_window(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2)
    await queue.submit(4)
    claim = await queue.claim(START)
    await queue.finish(claim.requests)
    assert await queue.claimed_ids(after(59)) == set()


async def test_the_window_s_length_is_the_state_s(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=1, window_milliseconds=2000, delivery_milliseconds=0)
    await queue.submit(2)
    assert len(await queue.claimed_ids(START)) == 1
    assert await queue.claimed_ids(after(2 - INSTANT)) == set()
    claim = await queue.claim(after(2))
    assert len(claim.requests) == 1
    assert claim.send_within_seconds == 0


async def test_tokens_are_reserved_until_they_are_settled(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    await queue.submit(4, reserved_tokens=400)
    claim = await queue.claim(START)
    assert len(claim.requests) == 2
    # 800 reserved; 50 of the first 400 were used.
    await queue.finish(claim.requests[:1], settled_tokens=50)
    assert len(await queue.claimed_ids()) == 1
    # 850: the fourth does not fit until what the first reserved and used leaves the window.
    await queue.finish(claim.requests[1:], settled_tokens=400)
    assert await queue.claimed_ids(after(WINDOW - INSTANT)) == set()
    assert len(await queue.claimed_ids(after(WINDOW))) == 1


async def test_a_call_that_used_more_than_it_reserved_counts_in_full(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    await queue.submit(2, reserved_tokens=100)
    claim = await queue.claim(capacity=1)
    await queue.finish(claim.requests, settled_tokens=950)
    assert await queue.claimed_ids() == set()


async def test_usage_that_is_not_known_leaves_the_reservation_standing(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    await queue.submit(2, reserved_tokens=600)
    claim = await queue.claim()
    await queue.finish(claim.requests, Outcome.FAILED)
    assert await queue.claimed_ids() == set()


async def test_a_settlement_after_the_window_changes_nothing(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    await queue.submit(3, reserved_tokens=600)
    claim = await queue.claim(START)
    assert len(claim.requests) == 1
    second = await queue.claim(after(WINDOW))
    await queue.finish(claim.requests, settled_tokens=0)
    await queue.finish(second.requests, settled_tokens=600)
    assert await queue.claimed_ids() == set()


async def test_a_large_request_at_the_head_is_not_overtaken(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    [first] = await queue.submit(reserved_tokens=600)
    [large] = await queue.submit(reserved_tokens=900)
    small = await queue.submit(5, reserved_tokens=10)
    assert await queue.claimed_ids(START) == {first}
    assert await queue.claimed_ids(after(30)) == set()
    assert await queue.claimed_ids(after(WINDOW)) == {large, *small}


async def test_priority_comes_before_age(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [late] = await queue.submit(priority=-1)
    [older] = await queue.submit(priority=0)
    [younger] = await queue.submit(priority=0)
    [urgent] = await queue.submit(priority=5)
    order = [await queue.claimed_ids(capacity=1) for _ in range(4)]
    assert order == [{urgent}, {older}, {younger}, {late}]


async def test_a_disabled_provider_starts_nothing_until_it_is_enabled(connection: Connection) -> None:
    queue = await Queue.create(connection)
    await queue.submit(2)
    await queue.edit(is_enabled=False)
    claim = await queue.claim()
    assert (claim.requests, claim.wait_seconds) == ((), None)
    await queue.edit(is_enabled=True)
    assert len(await queue.claimed_ids()) == 2


async def test_edited_limits_hold_from_the_next_claim(connection: Connection) -> None:
    queue = await Queue.create(connection, max_parallel=1, requests_per_minute=3)
    await queue.submit(10)
    assert len(await queue.claimed_ids()) == 1
    await queue.edit(max_parallel_requests=10)
    assert len(await queue.claimed_ids()) == 2
    await queue.edit(requests_per_minute=4)
    assert len(await queue.claimed_ids()) == 1
    await queue.edit(max_parallel_requests=1, requests_per_minute=1)
    assert await queue.claimed_ids(after(WINDOW - INSTANT)) == set()


async def test_a_request_too_large_for_a_lowered_limit_is_passed_over_until_it_rises(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=1000)
    [large] = await queue.submit(reserved_tokens=900)
    [small] = await queue.submit(reserved_tokens=100)
    await queue.edit(tokens_per_minute=500)
    assert await queue.claimed_ids() == {small}
    claim = await queue.claim()
    await queue.finish(claim.requests)
    await queue.edit(tokens_per_minute=1000)
    assert await queue.claimed_ids() == {large}


async def test_a_start_is_logged_with_what_was_leased(connection: Connection) -> None:
    queue = await Queue.create(connection)
    await queue.submit(2)
    claim = await queue.claim(START)
    starts = await repository.read_starts(connection, queue.row.provider_id)
    assert [start.sequence for start in starts] == [1, 2]
    assert {start.request_id for start in starts} == {request.request_id for request in claim.requests}
    assert {start.started_at for start in starts} == {START} == {request.started_at for request in claim.requests}
    assert [request.attempt for request in claim.requests] == [1, 1]
    assert await repository.read_starts(connection, queue.row.provider_id, after_sequence=1) == starts[1:]


async def test_a_provider_that_is_not_there_has_no_claim(connection: Connection) -> None:
    assert await repository.claim_requests(connection, "none", worker_id="w", capacity=1, lease_seconds=1) is None


async def test_a_clock_that_was_set_back_admits_nothing_twice(connection: Connection) -> None:
    """The server's clock is a day behind the provider's."""
    queue = await Queue.create(connection, requests_per_minute=1)
    await queue.submit(2)
    assert len(await queue.claimed_ids()) == 1
    assert await queue.claimed_ids() == set()
    starts = await repository.read_starts(connection, queue.row.provider_id)
    assert [start.started_at for start in starts] == [START]


async def test_providers_with_work_are_those_with_something_waiting_or_running(connection: Connection) -> None:
    waiting = await Queue.create(connection, provider="waiting")
    running = await Queue.create(connection, provider="running")
    done = await Queue.create(connection, provider="done")
    await insert_model(connection, provider="idle")
    for queue in (waiting, running, done):
        await queue.submit()
    await running.claim()
    await done.finish((await done.claim()).requests)
    found = await repository.providers_with_work(connection)
    assert set(found) == {waiting.row.provider_id, running.row.provider_id}


# How long to wait -----------------------------------------------------------


async def wait_until(queue: Queue) -> datetime | None:
    """The instant that the next claim's wait leads to."""
    claim = await queue.claim()
    if claim.wait_seconds is None:
        return None
    now: datetime = await queue.connection.fetchval("SELECT clock_timestamp()")
    return now + timedelta(seconds=claim.wait_seconds)


def near(found: datetime | None, expected: datetime) -> bool:
    return found is not None and abs(found - expected) < timedelta(milliseconds=200)


async def test_nothing_to_do_needs_no_wait(connection: Connection) -> None:
    queue = await Queue.create(connection)
    assert (await queue.claim()).wait_seconds is None


async def test_a_wait_for_requests_ends_when_the_oldest_start_leaves_the_window(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2)
    await queue.submit(3)
    await queue.claim(START, capacity=1, lease_seconds=600)
    await queue.claim(after(10), capacity=1, lease_seconds=600)
    assert near(await wait_until(queue), after(WINDOW))


async def test_a_wait_for_tokens_ends_when_the_oldest_tokens_leave_the_window(connection: Connection) -> None:
    queue = await Queue.create(connection, tokens_per_minute=100)
    await queue.submit(3, reserved_tokens=50)
    free = await queue.claim(START, capacity=1, lease_seconds=600)
    await queue.finish(free.requests, Outcome.RELEASED, settled_tokens=0)
    await queue.claim(after(10), capacity=2, lease_seconds=600)
    assert near(await wait_until(queue), after(10 + WINDOW))


async def test_where_only_a_place_is_missing_the_wait_is_for_a_notification_or_a_lease(connection: Connection) -> None:
    queue = await Queue.create(connection, max_parallel=1, requests_per_minute=1)
    await queue.submit(2)
    await queue.claim(START, lease_seconds=20)
    assert near(await wait_until(queue), after(20))


async def test_a_wait_ends_for_a_retry_and_for_a_deadline(connection: Connection) -> None:
    queue = await Queue.create(connection)
    await queue.submit()
    claim = await queue.claim(START)
    await queue.finish(claim.requests, Outcome.RETRY, retry_seconds=7)
    assert near(await wait_until(queue), after(7))
    await queue.edit(is_enabled=False)
    await queue.submit(deadline=after(5))
    assert near(await wait_until(queue), after(5))


async def test_a_retry_is_not_claimed_before_its_time(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [id] = await queue.submit()
    claim = await queue.claim(START)
    await queue.finish(claim.requests, Outcome.RETRY, retry_seconds=7)
    assert await queue.claimed_ids(after(7 - INSTANT)) == set()
    assert await queue.claimed_ids(after(7)) == {id}


# Deadlines ------------------------------------------------------------------


async def test_a_request_that_waits_past_its_deadline_fails(connection: Connection) -> None:
    queue = await Queue.create(connection)
    [id] = await queue.submit(deadline=after(5))
    await queue.edit(is_enabled=False)
    await queue.claim(after(5 - INSTANT))
    assert (await queue.get(id)).status == "PENDING"
    await queue.claim(after(5))
    request = await queue.get(id)
    assert (request.status, request.finished_at, request.attempt_count) == ("FAILED", after(5), 0)
    assert request.error["code"] == "DEADLINE_EXCEEDED"
    assert await queue.attempts(id) == []


# Concurrency ----------------------------------------------------------------


async def test_eight_claimers_at_once_never_exceed_the_parallel_limit(database_dsn: str, database: Database) -> None:
    async with database.connection() as connection:
        queue = await Queue.create(connection, at=None, max_parallel=5)
        ids = await queue.submit(120)
    finished: set[str] = set()

    async def work() -> None:
        async with database.connection() as connection:
            mine = Queue(connection, queue.row)
            while len(finished) < len(ids):
                claim = await mine.claim(capacity=3)
                finished.update(await mine.finish(claim.requests, settled_tokens=1))

    await asyncio.gather(*(work() for _ in range(8)))
    async with database.connection() as connection:
        starts = await repository.read_starts(connection, queue.row.provider_id)
    assert sorted(start.request_id for start in starts) == sorted(ids)
    setting = LimitSetting(EVER, max_parallel=5, requests_per_window=6000, tokens_per_window=None)
    assert replay(starts, [setting], window=timedelta(seconds=60)) == []


async def test_eight_claimers_at_once_never_exceed_requests_or_tokens(database: Database) -> None:
    async with database.connection() as connection:
        by_requests = await Queue.create(connection, at=None, provider="a", max_parallel=100, requests_per_minute=20)
        by_tokens = await Queue.create(connection, at=None, provider="b", max_parallel=100, tokens_per_minute=2050)
        for queue in (by_requests, by_tokens):
            await queue.submit(100)

    async def work(queue: Queue) -> int:
        async with database.connection() as connection:
            mine = Queue(connection, queue.row)
            return sum([len(await mine.claimed_ids(capacity=1)) for _ in range(8)])

    for queue in (by_requests, by_tokens):
        assert sum(await asyncio.gather(*(work(queue) for _ in range(8)))) == 20


# Notifications --------------------------------------------------------------


async def test_claims_and_ends_are_announced(connection: Connection, database: Database) -> None:
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    async with database.connection() as listening:
        for channel in (REQUESTS, WORK):
            await listening.add_listener(channel, lambda *notice: heard.put_nowait((str(notice[2]), str(notice[3]))))
        queue = await Queue.create(connection, max_parallel=1)
        first, second = await queue.submit(2)
        assert await heard.get() == (WORK, queue.row.provider_id)
        claim = await queue.claim()
        assert await heard.get() == (REQUESTS, first)
        await queue.finish(claim.requests)
        assert {await heard.get(), await heard.get()} == {(REQUESTS, first), (WORK, queue.row.provider_id)}
        assert await queue.claimed_ids() == {second}
        await listening.reset()


async def test_many_changes_are_announced_in_payloads_that_fit(connection: Connection, database: Database) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with database.connection() as listening:
        await listening.add_listener(REQUESTS, lambda *notice: heard.put_nowait(str(notice[3])))
        queue = await Queue.create(connection, max_parallel=1000)
        ids = await queue.submit(600)
        await queue.claim(capacity=1000)
        announced = [id for _ in range(3) for id in (await heard.get()).split()]
        await listening.reset()
    assert sorted(announced) == sorted(ids)

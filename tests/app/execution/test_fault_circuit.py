"""The circuit of a provider: opens after faults in a row, tries one call at a time, closes when one succeeds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from app import errors
from app.db.ids import new_id
from app.db.listen import WORK
from app.db.pool import Connection, Database
from app.errors import ProviderError
from app.requests.lifecycle import is_provider_fault
from app.requests.records import Outcome
from tests.app.limits.queue import START, Queue, after

INSTANT = 0.000001
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProviderError)]
FAULTS = {"ProviderUnavailable", "CallTimeout", "ConnectionFailed", "InvalidResponse"}


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


@pytest.fixture
async def queue(connection: Connection) -> Queue:
    return await Queue.create(connection, max_parallel=20)


async def _fail(queue: Queue, count: int, *, fault: bool = True) -> None:
    """So many calls that fail, one after the other."""
    for _ in range(count):
        await queue.submit(1, priority=9)
        claim = await queue.claim(capacity=1)
        assert len(claim.requests) == 1
        await queue.finish(claim.requests, Outcome.FAILED, provider_fault=fault)


async def _open_until(queue: Queue) -> datetime | None:
    until: datetime | None = await queue.connection.fetchval(
        "SELECT circuit_open_until FROM limit_states WHERE provider_id = $1", queue.row.provider_id
    )
    return until


async def _add_model(queue: Queue, name: str, status: str = "ACTIVE") -> str:
    """Another model of the same provider."""
    id = new_id()
    await queue.connection.execute(
        """
        INSERT INTO llm_models (id, workspace_id, provider_id, model_id, display_name, status, updated_at)
        VALUES ($1, 'default', $2, $3, $3, $4, now())
        """,
        id,
        queue.row.provider_id,
        name,
        status,
    )
    return id


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_provider_s_own_failures_are_its_faults(kind: type[ProviderError]) -> None:
    assert is_provider_fault(kind("no")) is (kind.__name__ in FAULTS)


async def test_five_faults_in_a_row_open_the_circuit_for_half_a_minute(queue: Queue) -> None:
    await _fail(queue, 4)
    assert await _open_until(queue) is None
    await _fail(queue, 1)
    assert await _open_until(queue) == after(30)
    await queue.submit(3)
    claim = await queue.claim(after(30 - INSTANT))
    assert claim.requests == ()
    assert claim.permits_left == 0


async def test_a_claim_says_when_the_circuit_lets_a_call_through(queue: Queue) -> None:
    await queue.set_clock(datetime.fromtimestamp(0, START.tzinfo))
    await _fail(queue, 5)
    await queue.submit(1)
    claim = await queue.claim()
    assert claim.wait_seconds is not None
    assert 25 < claim.wait_seconds <= 30


async def test_a_success_in_between_begins_the_count_anew(queue: Queue) -> None:
    await _fail(queue, 4)
    await queue.submit(1)
    await queue.finish((await queue.claim()).requests)
    await _fail(queue, 4)
    assert await _open_until(queue) is None


async def test_what_is_not_the_provider_s_fault_does_not_count(queue: Queue) -> None:
    await _fail(queue, 10, fault=False)
    await _fail(queue, 4)
    assert await _open_until(queue) is None


async def test_a_half_open_circuit_tries_one_call_at_a_time_and_a_success_closes_it(queue: Queue) -> None:
    await _fail(queue, 5)
    await queue.submit(5)
    [probe] = (await queue.claim(after(30))).requests
    assert (await queue.claim(after(31))).requests == ()
    # A refusal is no success: the next one is again alone.
    await queue.finish([probe], Outcome.FAILED, provider_fault=False)
    [probe] = (await queue.claim(after(32))).requests
    await queue.finish([probe])
    assert await _open_until(queue) is None
    assert len((await queue.claim(after(33))).requests) == 3


async def test_a_failed_probe_doubles_the_time_up_to_eight_minutes(queue: Queue) -> None:
    await _fail(queue, 5)
    await queue.submit(7)
    spans = []
    for _ in range(6):
        until = await _open_until(queue)
        assert until is not None
        [probe] = (await queue.claim(until)).requests
        await queue.finish([probe], Outcome.FAILED, provider_fault=True)
        opened = await _open_until(queue)
        assert opened is not None
        spans.append((opened - until).total_seconds())
    assert spans == [60, 120, 240, 480, 480, 480]


async def test_a_probe_whose_worker_is_lost_makes_room_for_another(queue: Queue) -> None:
    await _fail(queue, 5)
    await queue.submit(2)
    [lost] = (await queue.claim(after(30), lease_seconds=10)).requests
    [probe] = (await queue.claim(after(40))).requests
    assert probe.request_id == lost.request_id


async def test_calls_that_fail_while_the_circuit_is_open_do_not_lengthen_it(queue: Queue) -> None:
    await queue.submit(10)
    running = (await queue.claim(START)).requests
    for number, one in enumerate(running):
        await queue.set_clock(after(number))
        await queue.finish([one], Outcome.FAILED, provider_fault=True)
    assert await _open_until(queue) == after(4 + 30)


async def test_requests_with_another_provider_left_do_not_wait_for_an_open_circuit(
    queue: Queue, connection: Connection, database: Database
) -> None:
    other = await Queue.create(connection, provider="other")
    heard: list[str] = []
    async with database.connection() as listening:
        await listening.add_listener(WORK, lambda *arguments: heard.append(str(arguments[-1])))
        sibling = await _add_model(queue, "sibling")
        await _fail(queue, 5)
        [waits] = await queue.submit(1)
        # The sibling is behind the same circuit.
        [moves] = await queue.submit(
            1, fallbacks=f"{sibling} {other.row.model_id} {queue.row.model_id}", max_attempts=1
        )
        [owned] = await queue.submit(1, fallbacks=other.row.model_id, owner_id="api-1")
        await connection.execute("INSERT INTO owner_processes VALUES ('api-1', 'infinity')")
        heard.clear()
        await queue.claim(after(1))
        await listening.execute("SELECT 1")
        assert other.row.provider_id in heard
        await listening.reset(timeout=5)
    moved = await queue.get(moves)
    assert (moved.status, moved.provider_id, moved.model_ref) == ("PENDING", other.row.provider_id, other.row.ref)
    assert moved.fallback_model_ids == (queue.row.model_id,)
    assert (moved.attempt_count, moved.max_attempts) == (0, 3)
    assert (await queue.get(owned)).provider_id == other.row.provider_id
    assert (await queue.get(waits)).provider_id == queue.row.provider_id
    assert await other.claimed_ids(after(1)) == {moves}


async def test_requests_whose_other_models_cannot_be_used_wait_for_the_circuit(
    queue: Queue, connection: Connection
) -> None:
    inactive = await _add_model(await Queue.create(connection, provider="first"), "old", "DEPRECATED")
    disabled = await Queue.create(connection, provider="second")
    await disabled.edit(is_enabled=False)
    broken = await Queue.create(connection, provider="third", max_parallel=20)
    await _fail(broken, 5)
    small = await Queue.create(connection, provider="fourth", tokens_per_minute=99)
    await _fail(queue, 5)
    models = (inactive, disabled.row.model_id, broken.row.model_id, small.row.model_id, "gone")
    [id] = await queue.submit(1, fallbacks=" ".join(models))
    await queue.claim(after(1))
    assert (await queue.get(id)).provider_id == queue.row.provider_id
    assert await queue.claimed_ids(after(30)) == {id}


async def test_requests_with_another_provider_left_do_not_wait_for_a_disabled_one(
    queue: Queue, connection: Connection
) -> None:
    other = await Queue.create(connection, provider="other")
    [id] = await queue.submit(1, fallbacks=other.row.model_id)
    await queue.edit(is_enabled=False)
    await queue.claim(after(1))
    assert await other.claimed_ids(after(1)) == {id}

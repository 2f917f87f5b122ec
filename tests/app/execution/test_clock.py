"""The steady clock: what machines tell of it, and what it says when the server's clock cannot be right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.db.pool import Connection, Database
from app.execution.clock import SteadyClock
from app.limits import repository
from app.limits.records import ClockReading, Expectation
from app.requests.repository import keep_owner
from tests.app.limits.queue import Queue
from tests.catalog_rows import insert_model

HOUR = timedelta(hours=1)
SECOND = 1_000_000
WAITS = (
    """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"""
)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


class Machine:
    """One whose own clock says what the test says, in microseconds."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.epoch = 0
        self.offset = 0

    async def tell(self, now: int, *, error: int = 0, reading: ClockReading | None = None) -> bool:
        """Measures, wrong by `error` microseconds, and tells; false where it is to measure anew."""
        if reading is None:
            reading = await repository.read_steady_clock(self.connection)
        offset = reading.told_microseconds - now + error
        known = await repository.witness_clock(
            self.connection, self.name, reading, offset_microseconds=offset, machine_microseconds=now
        )
        if known is None:
            return False
        self.epoch, self.offset = known
        return True

    def expects(self, now: int) -> Expectation:
        return Expectation(self.epoch, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now + self.offset))


async def _behind(connection: Connection) -> float:
    seconds: float = await connection.fetchval("SELECT behind_microseconds / 1e6::float8 FROM steady_clock")
    return seconds


async def _ago(connection: Connection, seconds: float) -> int:
    """The server's time since 1970, that long ago: a machine's clock that has gone with it since."""
    microseconds: int = await connection.fetchval(
        "SELECT ((extract(epoch FROM clock_timestamp()) - $1) * 1000000)::bigint", seconds
    )
    return microseconds


async def _set_forward(connection: Connection, seconds: float) -> None:
    """As if the server's clock had been set forward, and a machine had told: its own clock was so far behind before."""
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 0))
    await connection.execute("UPDATE steady_clock SET witnessed_at = witnessed_at - $1 * interval '1 second'", seconds)
    assert await machine.tell(await _ago(connection, seconds))


async def test_the_first_machine_sets_the_clock_by_the_server_s(connection: Connection) -> None:
    machine = Machine(connection, "a")
    assert await machine.tell(5 * SECOND)
    assert await _behind(connection) == 0
    told = await connection.fetchval("SELECT steady_now()")
    assert abs((machine.expects(5 * SECOND).clock or told) - told) < timedelta(seconds=5)


@pytest.mark.parametrize("step", [HOUR, -HOUR, timedelta(seconds=0.2), timedelta(seconds=-0.2)])
async def test_a_step_moves_the_server_s_clock_and_not_the_steady_one(connection: Connection, step: timedelta) -> None:
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 0))
    offset = machine.offset
    # As if the server's clock had been stepped: the machine's says that this time has not passed.
    assert await machine.tell(await _ago(connection, step.total_seconds()))
    assert machine.offset == offset
    assert await _behind(connection) == pytest.approx(step.total_seconds(), abs=0.05)
    assert (
        await connection.fetchval("SELECT abs(extract(epoch FROM server_time(steady_now()) - clock_timestamp()))")
        < 0.05
    )


@pytest.mark.parametrize("other_name", ["a", "b"])
async def test_a_step_that_two_processes_measured_at_once_is_told_by_one(
    connection: Connection, other_name: str
) -> None:
    one, other = Machine(connection, "a"), Machine(connection, other_name)
    for machine in (one, other, one):
        assert await machine.tell(await _ago(connection, 0))
    reading = await repository.read_steady_clock(connection)
    now = await _ago(connection, 60)
    assert await one.tell(now, reading=reading)
    assert not await other.tell(now, reading=reading)
    assert await _behind(connection) == pytest.approx(60, abs=0.2)
    assert await other.tell(await _ago(connection, 60))
    assert await _behind(connection) == pytest.approx(60, abs=0.2)
    assert one.offset == pytest.approx(other.offset, abs=100_000)


async def test_a_machine_that_was_away_takes_its_drift_for_no_step(connection: Connection) -> None:
    """The others have followed the server's clock meanwhile: were each to hold to its own, they would never agree."""
    away, other = Machine(connection, "a"), Machine(connection, "b")
    for machine in (away, other, away):
        assert await machine.tell(await _ago(connection, 0))
    await connection.execute(
        "UPDATE clock_witnesses SET witnessed_at = witnessed_at - interval '1 day' WHERE machine_id = 'a'"
    )
    behind = await _behind(connection)
    for machine in (other, away, other):
        assert await machine.tell(await _ago(connection, 0 if machine is other else 4))
        assert await _behind(connection) == behind
    expected = [machine.expects(await _ago(connection, ago)).clock for machine, ago in ((other, 0), (away, 4))]
    assert None not in expected
    assert abs((expected[0] - expected[1]).total_seconds()) < 0.1  # type: ignore[operator]  # neither is None


async def test_the_last_machine_to_go_knows_a_step_when_it_comes_back(connection: Connection) -> None:
    machine, other = Machine(connection, "a"), Machine(connection, "b")
    for one in (machine, other, machine):
        assert await one.tell(await _ago(connection, 0))
    behind = await _behind(connection)
    # A day later, and the server's clock was set back by an hour meanwhile.
    await connection.execute("UPDATE clock_witnesses SET witnessed_at = witnessed_at - interval '1 day'")
    await connection.execute("UPDATE steady_clock SET witnessed_at = witnessed_at - interval '1 day'")
    assert await machine.tell(await _ago(connection, -3600))
    assert await _behind(connection) == pytest.approx(behind - 3600, abs=0.1)


async def test_what_arrives_late_from_a_machine_moves_its_clock_no_further_than_what_is_in_time(
    connection: Connection,
) -> None:
    machine = Machine(connection, "a")
    now = await _ago(connection, 100)
    assert await machine.tell(now)
    offset = machine.offset
    # Measured five seconds before what was told last, and right.
    reading = await repository.read_steady_clock(connection)
    assert await machine.tell(now - 5 * SECOND, reading=reading._replace(told_microseconds=now - 5 * SECOND + offset))
    assert machine.offset == offset


async def test_what_two_machines_measure_differently_by_a_little_is_no_step(connection: Connection) -> None:
    one, other = Machine(connection, "a"), Machine(connection, "b")
    assert await one.tell(await _ago(connection, 0))
    assert await other.tell(await _ago(connection, 1000))
    for error in (40_000, -40_000):
        assert await one.tell(await _ago(connection, 0), error=error)
        assert await other.tell(await _ago(connection, 1000), error=-error)
    assert abs(await _behind(connection)) < 0.05


async def test_a_drift_is_followed_by_a_thousandth(connection: Connection) -> None:
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 100))
    offset = machine.offset
    await connection.execute("UPDATE clock_witnesses SET witnessed_at = witnessed_at - interval '10 seconds'")
    assert await machine.tell(await _ago(connection, 100), error=50_000)
    assert machine.offset - offset == pytest.approx(10_000, abs=2_000)


async def test_a_new_machine_begins_an_epoch_and_others_measure_anew(connection: Connection) -> None:
    one, other = Machine(connection, "a"), Machine(connection, "b")
    assert await one.tell(0)
    reading = await repository.read_steady_clock(connection)
    assert await other.tell(0)
    assert not await one.tell(0, reading=reading)
    assert await one.tell(0)
    assert one.epoch == other.epoch == reading.epoch + 1


async def test_time_that_no_machine_has_witnessed_does_not_pass_for_a_window(connection: Connection) -> None:
    """All machines were restarted, and nobody can tell for how long: the server's clock may have been set meanwhile."""
    queue = await Queue.create(connection, at=None, requests_per_minute=2)
    assert await Machine(connection, "a").tell(0)
    await queue.submit(3)
    assert len((await queue.claim()).requests) == 2
    for table, column in (
        ("limit_states", "clock"),
        ("steady_clock", "witnessed_at"),
        ("provider_starts", "started_at"),
    ):
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.execute(f"UPDATE {table} SET {column} = {column} - interval '1 hour'")
    assert await Machine(connection, "a, started again").tell(0)
    assert await _behind(connection) == pytest.approx(3600, abs=5)
    claim = await queue.claim()
    assert claim.requests == ()
    assert claim.wait_seconds == pytest.approx(60, abs=5)


async def test_where_no_window_is_under_way_the_clock_is_set_by_the_server_s_again(connection: Connection) -> None:
    await Queue.create(connection, at=None)
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 0))
    assert await machine.tell(await _ago(connection, 3600))
    assert await _behind(connection) == pytest.approx(3600, abs=1)
    assert await Machine(connection, "a, started again").tell(0)
    assert await _behind(connection) == 0


async def test_a_process_that_lives_is_not_taken_for_gone_where_the_clock_is_set_by_the_server_s_again(
    connection: Connection,
) -> None:
    queue = await Queue.create(connection, at=None)
    await _set_forward(connection, 3600)
    await keep_owner(connection, "alive", seconds=30)
    await queue.edit(is_enabled=False)
    await queue.submit(owner_id="alive")
    assert await Machine(connection, "b").tell(0)
    assert await _behind(connection) == 0
    await queue.claim()
    assert await connection.fetchval("SELECT status FROM model_requests") == "PENDING"
    left = await connection.fetchval(
        "SELECT extract(epoch FROM expires_at - steady_now())::float8 FROM owner_processes"
    )
    assert left == pytest.approx(30, abs=5)


async def test_a_new_machine_waits_for_the_claims_that_are_under_way(
    connection: Connection, database: Database
) -> None:
    """Their starts may be in a window that it would else not see."""
    queue = await Queue.create(connection, at=None)
    await _set_forward(connection, 3600)
    await queue.submit()
    async with database.connection() as newcomer:
        async with connection.transaction():
            assert len((await queue.claim()).requests) == 1
            telling = asyncio.create_task(Machine(newcomer, "b").tell(0))
            async with database.connection() as looking:
                while not telling.done() and not await looking.fetchval(WAITS):
                    pass
            assert not telling.done()
        assert await telling
    assert await _behind(connection) == pytest.approx(3600, abs=5)


@pytest.mark.parametrize("others_clock", [timedelta(hours=1), timedelta(hours=-1)])
async def test_a_new_machine_does_not_take_one_provider_s_clock_for_the_time(
    connection: Connection, others_clock: timedelta
) -> None:
    """A process without an expectation may have claimed by a clock that was stepped, before that was noticed."""
    queue = await Queue.create(connection, at=None, requests_per_minute=2)
    assert await Machine(connection, "a").tell(0)
    await queue.submit(3)
    assert len((await queue.claim()).requests) == 2
    other = Queue(connection, await insert_model(connection, provider="other"))
    await other.set_clock(await connection.fetchval("SELECT steady_now()") + others_clock)
    assert await Machine(connection, "b").tell(0)
    assert await _behind(connection) == pytest.approx(0, abs=5)
    assert (await queue.claim()).requests == ()


async def test_a_provider_made_before_a_step_is_noticed_is_not_held_up_by_it(connection: Connection) -> None:
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 0))
    # The server's clock was set forward by an hour; it is told of only after that.
    await connection.execute("UPDATE steady_clock SET behind_microseconds = -3600000000")
    queue = await Queue.create(connection, at=None)
    await queue.submit()
    await connection.execute("UPDATE steady_clock SET behind_microseconds = 0")
    assert len((await queue.claim()).requests) == 1
    ahead = await connection.fetchval(
        "SELECT extract(epoch FROM started_at - steady_now())::float8 FROM provider_starts"
    )
    assert ahead == pytest.approx(0, abs=5)


async def test_a_claim_goes_by_what_its_machine_expects_until_the_step_is_told(connection: Connection) -> None:
    queue = await Queue.create(connection, at=None, requests_per_minute=1)
    machine = Machine(connection, "a")
    assert await machine.tell(await _ago(connection, 0))
    await queue.submit(2)
    at = await _ago(connection, 0)
    await repository.claim_requests(
        connection, queue.row.provider_id, worker_id="w", capacity=1, lease_seconds=30, expectation=machine.expects(at)
    )
    # Two hours later, says the server; the machine says that no time has passed.
    await connection.execute("UPDATE steady_clock SET behind_microseconds = -7200000000")
    expectation = machine.expects(await _ago(connection, 0))
    claim = await repository.claim_requests(
        connection, queue.row.provider_id, worker_id="w", capacity=1, lease_seconds=30, expectation=expectation
    )
    assert claim is not None
    assert claim.requests == ()
    # Without an expectation the server is believed.
    assert len((await queue.claim()).requests) == 1


async def test_a_process_knows_the_clock_from_its_start_on(database: Database, connection: Connection) -> None:
    clock = SteadyClock(database, lease_seconds=30)
    assert clock.expectation() == (None, None)
    await clock.start()
    told = await connection.fetchval("SELECT steady_now()")
    expected = clock.expectation().clock
    await clock.stop()
    assert expected is not None
    assert abs(expected - told) < timedelta(seconds=0.2)
    again = SteadyClock(database, lease_seconds=30)
    await again.witness()
    # Of the same machine: it begins no epoch.
    assert again.expectation().epoch == clock.expectation().epoch

"""When a call that came now would get its permit: the arithmetic, and what it is fed with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db.pool import Connection
from app.limits import repository
from app.limits.forecast import Backlog, WindowStart, seconds_until_permit
from tests.app.limits.queue import START, Queue, after

SPAN = 60.0


def backlog(*leaves_in_seconds: float, tokens: int = 0, **values: object) -> Backlog:
    """Of one start for each of the instants."""
    window = [WindowStart(seconds, tokens) for seconds in leaves_in_seconds]
    fields = {
        "max_parallel": 100,
        "requests_per_minute": 3,
        "tokens_per_minute": None,
        "span_seconds": SPAN,
        "running": 0,
        "waiting": 0,
        "waiting_tokens": 0,
    }
    return Backlog(**fields | values, window=window)  # type: ignore[arg-type] # named like the fields


def wait(given: Backlog, tokens: int = 1) -> float:
    return seconds_until_permit(given, tokens=tokens)


@pytest.mark.parametrize(
    ("waiting", "seconds"),
    [(0, 0), (1, 10), (2, 50), (3, 60), (4, 70), (5, 110), (6, 120), (30, 600)],
)
def test_each_that_waits_takes_the_next_permit_and_frees_it_a_window_later(waiting: int, seconds: float) -> None:
    # One of three permits is free; the others come free in 10 and in 50 seconds.
    assert wait(backlog(10, 50, waiting=waiting)) == seconds


def test_after_a_lowered_limit_the_surplus_leaves_first() -> None:
    assert wait(backlog(10, 20, 30, 40, requests_per_minute=2)) == 30


def test_tokens_are_waited_for_too() -> None:
    busy = backlog(10, 50, tokens=40, tokens_per_minute=100)
    assert [wait(busy, tokens) for tokens in (20, 21, 60, 61, 100)] == [0, 10, 10, 50, 50]


def test_reservations_that_wait_ahead_take_whole_windows() -> None:
    assert wait(backlog(tokens_per_minute=100, waiting=2, waiting_tokens=160), 40) == 60
    assert wait(backlog(tokens_per_minute=100, waiting=2, waiting_tokens=160), 41) == 120


def test_places_come_free_as_fast_as_calls_ended_until_now() -> None:
    full = [
        backlog(max_parallel=2, running=2, waiting=waiting, call_seconds=8.0, requests_per_minute=1000)
        for waiting in (0, 1, 9)
    ]
    assert list(map(wait, full)) == [4, 8, 40]
    assert wait(backlog(max_parallel=2, running=1, call_seconds=8.0)) == 0


def test_of_calls_whose_length_is_not_known_nothing_is_said() -> None:
    assert wait(backlog(max_parallel=1, running=1)) == 0


def test_an_open_circuit_is_waited_for() -> None:
    assert wait(backlog(circuit_seconds=12.5)) == 12.5


@given(
    st.lists(st.integers(1, 59), max_size=8).map(sorted),
    st.integers(0, 40),
    st.integers(1, 8),
)
def test_it_is_the_instant_at_which_a_sliding_window_admits_the_last_of_the_queue(
    leaves: list[int], waiting: int, limit: int
) -> None:
    leaving = [float(seconds) for seconds in leaves]
    now = 0.0
    for _ in range(waiting + 1):
        now = max(now, leaving[len(leaving) - limit] if len(leaving) >= limit else 0.0)
        leaving.append(now + SPAN)
    assert wait(backlog(*leaves, waiting=waiting, requests_per_minute=limit)) == now


async def test_the_backlog_is_what_the_database_has(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2, tokens_per_minute=1000, max_parallel=5)
    await queue.submit(6, reserved_tokens=70)
    claim = await queue.claim(START)
    await queue.finish(claim.requests[:1])
    await queue.set_clock(after(20))
    read = await repository.backlog_of(connection, queue.row.provider_id)
    assert read is not None
    assert (read.running, read.waiting, read.waiting_tokens) == (1, 4, 280)
    assert [start.leaves_in_seconds for start in read.window] == pytest.approx([40.6, 40.6])
    assert [start.tokens for start in read.window] == [70, 70]
    assert (read.max_parallel, read.requests_per_minute, read.tokens_per_minute) == (5, 2, 1000)
    assert read.call_seconds is not None
    assert seconds_until_permit(read, tokens=70) == pytest.approx(40.6 + 2 * 60.6)
    assert await repository.backlog_of(connection, "nobody") is None


async def test_who_comes_after_the_forecast_time_is_admitted_then_and_not_before(connection: Connection) -> None:
    queue = await Queue.create(connection, requests_per_minute=2)
    await queue.submit(3)
    await queue.claim(START, capacity=1)
    await queue.claim(after(30))
    read = await repository.backlog_of(connection, queue.row.provider_id)
    assert read is not None
    (late,) = await queue.submit()
    at = 30 + seconds_until_permit(read, tokens=100)
    assert len(await queue.claimed_ids(after(60.6))) == 1
    assert await queue.claimed_ids(after(at - 0.000001)) == set()
    assert await queue.claimed_ids(after(at)) == {late}

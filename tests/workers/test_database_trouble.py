"""A worker whose database goes away, for a moment or for good."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.worker_process import WorkerProcess
from tests.workers.proxy import proxy_to
from tests.workers.work import Work

KILL_THE_WORKERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name IN ('tollgate worker', 'tollgate listener')"
)


async def test_killed_connections_neither_lose_nor_repeat_a_call(work: Work) -> None:
    work.configure(latency_ms=400, input_tokens=10, output_tokens=5)
    with WorkerProcess(work.dsn) as worker:
        ids = [await work.submit() for _ in range(5)]
        await work.seen(running=5)
        await work.execute(KILL_THE_WORKERS)
        await work.finished(*ids)
        assert {(await work.get(id)).status for id in ids} == {"COMPLETED"}
        assert {len(await work.attempts(id)) for id in ids} == {1}
        assert {len(await work.ledger(id)) for id in ids} == {2}
        assert work.record()["arrivals"] == 5
        # It hears of new work again.
        work.configure(latency_ms=None)
        assert (await work.run()).status == "COMPLETED"
        assert worker.process.poll() is None


@pytest.mark.parametrize("trouble", ["cut", "fall_silent"])
async def test_a_call_is_stopped_before_its_lease_ends_when_the_database_is_out_of_reach(
    work: Work, trouble: str
) -> None:
    work.configure(fault="hang", errors_first=1)
    async with proxy_to(work.dsn) as proxy:
        with WorkerProcess(proxy.dsn, TOLLGATE_LEASE_SECONDS="1"):
            request_id = await work.submit()
            await work.seen(running=1)
            getattr(proxy, trouble)()
            await work.seen(ended=1)
            call = work.record()["calls"][0]
            held = await work.get(request_id)
            assert (held.status, call["outcome"]) == ("PROCESSING", "abandoned")
            assert held.lease_expires_at is not None
            assert datetime.fromtimestamp(call["ended"], UTC) < held.lease_expires_at
            # Somebody who reaches the database runs it, and is the only one to charge it.
            with WorkerProcess(work.dsn, TOLLGATE_LEASE_SECONDS="1"):
                request = await work.finished(request_id)
    assert request.status == "COMPLETED"
    assert [attempt.status for attempt in await work.attempts(request_id)] == ["LOST", "SUCCEEDED"]
    assert len({entry.lease_id for entry in await work.ledger(request_id)}) == 1


async def test_a_worker_without_its_database_stops_when_it_is_told_to(work: Work) -> None:
    work.configure(latency_ms=300)
    async with proxy_to(work.dsn) as proxy:
        with WorkerProcess(proxy.dsn, TOLLGATE_LEASE_SECONDS="1", TOLLGATE_DRAIN_SECONDS="0") as worker:
            await work.submit()
            await work.seen(running=1)
            proxy.cut()
            await asyncio.to_thread(worker.terminate)


async def test_connections_that_break_now_and_then_charge_every_call_once(work: Work) -> None:
    work.configure(latency_ms=20, input_tokens=10, output_tokens=5)
    async with proxy_to(work.dsn) as proxy:
        with WorkerProcess(proxy.dsn, TOLLGATE_LEASE_SECONDS="1"):
            ids = []
            for number in range(60):
                ids.append(await work.submit())
                if number % 10 == 9:
                    await work.seen(ended=number // 2)
                    proxy.sever()
            await work.finished(*ids)
    charged = await work.value("SELECT count(DISTINCT (request_id, lease_id)) FROM ledger_entries")
    statuses = {(await work.get(id)).status for id in ids}
    assert statuses == {"COMPLETED"}
    assert charged == 60

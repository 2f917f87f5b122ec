"""A worker that is told to stop."""

from __future__ import annotations

import asyncio
import signal

from app.db.pool import Database
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess
from tests.workers.work import Work, work_for


async def test_a_draining_worker_finishes_what_runs_and_starts_nothing_more(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    emulator.configure("acme", latency_ms=500)
    async with work_for(database, database_dsn, emulator, max_parallel=3) as work:
        with WorkerProcess(work.dsn) as worker:
            ids = [await work.submit() for _ in range(5)]
            await work.seen(running=3)
            assert await asyncio.to_thread(worker.terminate) == 0
        assert [(await work.get(id)).status for id in ids] == ["COMPLETED"] * 3 + ["PENDING"] * 2
        assert work.record()["arrivals"] == 3


async def test_an_idle_worker_stops_at_once(work: Work) -> None:
    with WorkerProcess(work.dsn) as worker:
        await work.run()
        assert await asyncio.to_thread(worker.terminate, 5) == 0


async def test_a_call_that_outlasts_the_drain_is_given_back(work: Work) -> None:
    work.configure(fault="hang")
    with WorkerProcess(work.dsn, TOLLGATE_DRAIN_SECONDS="0") as worker:
        request_id = await work.submit()
        await work.seen(running=1)
        assert await asyncio.to_thread(worker.terminate) == 0
    await work.seen(ended=1)
    assert (await work.get(request_id)).status == "PENDING"
    work.configure(fault=None)
    with WorkerProcess(work.dsn):
        request = await work.finished(request_id)
    assert request.status == "COMPLETED"
    assert [attempt.status for attempt in await work.attempts(request_id)] == ["FAILED", "SUCCEEDED"]


async def test_a_second_signal_ends_the_drain(work: Work) -> None:
    work.configure(fault="hang")
    with WorkerProcess(work.dsn, TOLLGATE_DRAIN_SECONDS="3600") as worker:
        request_id = await work.submit()
        await work.seen(running=1)
        worker.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(worker.terminate) == 0
    assert (await work.get(request_id)).status == "PENDING"


async def test_a_killed_worker_s_request_is_run_by_another_when_its_lease_ends(work: Work) -> None:
    work.configure(fault="hang", errors_first=1)
    with WorkerProcess(work.dsn, TOLLGATE_LEASE_SECONDS="1") as worker:
        request_id = await work.submit()
        await work.seen(running=1)
        with WorkerProcess(work.dsn, TOLLGATE_LEASE_SECONDS="1"):
            worker.kill()
            request = await work.finished(request_id)
    assert request.status == "COMPLETED"
    assert [attempt.status for attempt in await work.attempts(request_id)] == ["LOST", "SUCCEEDED"]
    assert len({entry.lease_id for entry in await work.ledger(request_id)}) == 1

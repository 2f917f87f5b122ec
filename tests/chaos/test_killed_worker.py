"""Workers that are killed, frozen, or told to stop while answers stream."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from tests.chaos.aftermath import Trial
from tests.worker_process import WorkerProcess

STREAMING = "EXISTS (SELECT FROM request_chunks WHERE request_id = $1)"


async def test_a_worker_killed_in_mid_stream_loses_no_request(trial: Trial) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=50)
    with trial.worker() as worker:
        first, *_ = await trial.submit(6, stream=True)
        await trial.until(STREAMING, first)
        worker.restart()
        assert await trial.check() == {"COMPLETED": 6}
    assert [attempt.status for attempt in await trial.work.attempts(first)] == ["LOST", "SUCCEEDED"]
    assert trial.work.record()["calls"][0]["outcome"] == "abandoned"


async def test_a_frozen_worker_is_gone_before_its_leases_end(trial: Trial) -> None:
    trial.work.configure(fault="hang", errors_first=3)
    with trial.worker() as frozen:
        ids = await trial.submit(5)
        await trial.work.seen(running=3)
        with trial.worker():
            frozen.process.send_signal(signal.SIGSTOP)
            # The guardian's doing: nobody lets it go on.
            assert await asyncio.to_thread(frozen.process.wait, 10) == -signal.SIGKILL
            assert await trial.check() == {"COMPLETED": 5}
    lost = [call for call in trial.work.record()["calls"] if call["outcome"] == "abandoned"]
    ends = await trial.work.value("SELECT min(finished_at) FROM request_attempts WHERE status = 'LOST'")
    assert len(lost) == 3
    assert max(datetime.fromtimestamp(call["ended"], UTC) for call in lost) < ends
    assert [attempt.status for attempt in await trial.work.attempts(ids[0])] == ["LOST", "SUCCEEDED"]


async def test_a_worker_frozen_for_less_than_its_lease_goes_on(trial: Trial) -> None:
    trial.work.configure(latency_ms=600)
    with WorkerProcess(trial.work.dsn, TOLLGATE_LEASE_SECONDS="10") as worker:
        ids = await trial.submit(3)
        await trial.work.seen(running=3)
        worker.process.send_signal(signal.SIGSTOP)
        await trial.work.seen(ended=3)
        worker.process.send_signal(signal.SIGCONT)
        assert await trial.check() == {"COMPLETED": 3}
        assert worker.process.poll() is None
    assert {len(await trial.work.attempts(id)) for id in ids} == {1}


async def test_a_frozen_worker_that_holds_nothing_of_a_call_is_killed_too_and_nothing_waits_for_it(
    trial: Trial,
) -> None:
    with trial.worker() as frozen:
        await trial.submit(1)
        await trial.check()
        frozen.process.send_signal(signal.SIGSTOP)
        await trial.submit(2)
        with trial.worker():
            assert await trial.check() == {"COMPLETED": 3}


async def test_a_guardian_ends_with_its_worker(trial: Trial) -> None:
    with trial.worker() as worker:
        await trial.submit(1)
        await trial.check()
        [guardian] = _children(worker.process.pid)
        assert await asyncio.to_thread(worker.terminate) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(guardian, 0)


async def test_workers_replaced_one_after_the_other_lose_nothing(trial: Trial) -> None:
    trial.work.configure(latency_ms=(20, 200))
    worker = trial.worker()
    try:
        await trial.submit(40)
        for ended in (5, 15, 25):
            await trial.work.seen(ended=ended)
            # As on a deploy: the next one is started when this one is told to stop.
            leaving, worker = worker, trial.worker()
            assert await asyncio.to_thread(leaving.terminate) == 0
        assert await trial.check() == {"COMPLETED": 40}
    finally:
        worker.kill()
    assert await trial.work.value("SELECT count(*) FROM request_attempts WHERE status <> 'SUCCEEDED'") == 0


@pytest.mark.soak
async def test_workers_killed_and_frozen_for_minutes_lose_nothing(trial: Trial) -> None:
    trial.work.configure(output_tokens=(5, 40), chunk_ms=(5, 50))
    chance = random.Random(20261120)
    workers = [trial.worker() for _ in range(3)]
    try:
        await trial.submit(1000, stream=True)
        for _ in range(60):
            await asyncio.sleep(chance.uniform(0.5, 2))
            number = chance.randrange(3)
            if chance.random() < 0.5:
                workers[number].process.send_signal(signal.SIGSTOP)
                # One that has not come up yet holds nothing, and has no guardian.
                with suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(workers[number].process.wait, 3)
            await asyncio.to_thread(workers[number].restart)
        counts = await trial.check(timeout_seconds=300)
    finally:
        for worker in workers:
            worker.kill()
    # A request is lost to its caller only if every one of its three attempts met a kill.
    assert counts["COMPLETED"] >= 970


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - of the kernel
        return [int(child) for child in file.read().split()]

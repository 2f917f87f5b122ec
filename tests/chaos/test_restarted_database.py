"""PostgreSQL is killed and started again while calls are under way."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.db.migrate import migrate
from app.db.pool import Database
from tests.chaos.aftermath import Trial, trial_on
from tests.chaos.test_gateway_process import serving
from tests.emulator import Emulator
from tests.postgres import Cluster
from tests.worker_process import WorkerProcess

# Long enough for a start of PostgreSQL: what is tested is that nothing is lost, not that leases end.
PATIENT = {"TOLLGATE_LEASE_SECONDS": "20"}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Of the test's own, with what a real server has: what is acknowledged survives a crash of the server."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-restart-"))
    cluster = Cluster(directory, synchronous_commit="on")
    await asyncio.to_thread(cluster.start, os.getpid())
    yield cluster
    await asyncio.to_thread(cluster.stop)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def trial(cluster: Cluster, emulator: Emulator) -> AsyncIterator[Trial]:
    database = await Database.connect(cluster.dsn)
    await migrate(database)
    async with trial_on(database, cluster.dsn, emulator) as trial:
        yield trial
    await database.close()


async def test_calls_that_run_through_a_restart_end_once(trial: Trial, cluster: Cluster) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=100)
    with WorkerProcess(trial.work.dsn, **PATIENT) as worker:
        ids = await trial.submit(6, stream=True)
        await trial.work.seen(running=3)
        await asyncio.to_thread(cluster.restart)
        assert await trial.check() == {"COMPLETED": 6}
        # It hears of new work again.
        ids += await trial.submit(1)
        assert await trial.check() == {"COMPLETED": 7}
        assert worker.process.poll() is None
    # The running calls went on meanwhile, and were charged when the server was there again.
    assert {len(await trial.work.attempts(id)) for id in ids} == {1}


async def test_gateway_clients_do_not_notice_a_restart(trial: Trial, cluster: Cluster, tmp_path: Path) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=100)
    with serving(trial, tmp_path / "data", **PATIENT) as gateway:
        async with gateway.streaming(trial.work.ref, 3) as responses:
            await asyncio.to_thread(cluster.restart)
            texts = [(await response.aread()).decode() for response in responses]
        assert all("[DONE]" in text for text in texts)
        assert await trial.check() == {"COMPLETED": 3}
        async with gateway.streaming(trial.work.ref, 1) as [response]:
            assert "[DONE]" in (await response.aread()).decode()
    assert await trial.check() == {"COMPLETED": 4}


async def test_a_restart_under_load_loses_nothing_that_was_acknowledged(trial: Trial, cluster: Cluster) -> None:
    await _restart_under_load(trial, cluster, requests=60, restarts=2)


@pytest.mark.soak
async def test_many_restarts_under_load_lose_nothing_that_was_acknowledged(trial: Trial, cluster: Cluster) -> None:
    await _restart_under_load(trial, cluster, requests=600, restarts=15)


async def _restart_under_load(trial: Trial, cluster: Cluster, *, requests: int, restarts: int) -> None:
    trial.work.configure(latency_ms=(20, 200))
    chance = random.Random(20261120)
    with WorkerProcess(trial.work.dsn, **PATIENT), WorkerProcess(trial.work.dsn, **PATIENT):
        acknowledged = await trial.submit(requests)
        for number in range(restarts):
            await trial.work.seen(ended=(number + 1) * requests // (restarts + 2) + chance.randrange(5))
            await asyncio.to_thread(cluster.restart)
        counts = await trial.check(timeout_seconds=30 + requests / 5)
    assert counts == {"COMPLETED": len(acknowledged)}

"""PgQueuer's drain rate, which knows no limits and no ledger: what a queue alone can do on the same server."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg

try:
    import pgqueuer
    from pgqueuer.types import QueueExecutionMode
except ImportError:
    pgqueuer = None  # type: ignore[assignment]  # an optional peer

_JOBS_A_SECOND = 5_000
"""Assumed, to enqueue a backlog that lasts about as long as asked for."""
_ENQUEUE_BATCH = 5_000
_DEQUEUE_BATCH = 200
_NAME = "bench_pgqueuer"


async def drain_rate(server: str, seconds: float) -> float | None:
    """Jobs a second, from the first dequeue until the queue is empty; None where PgQueuer is not installed."""
    if pgqueuer is None:
        return None
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f'DROP DATABASE IF EXISTS "{_NAME}" WITH (FORCE)')
        await admin.execute(f'CREATE DATABASE "{_NAME}"')
        return await _drain(urlunsplit(urlsplit(server)._replace(path=f"/{_NAME}")), seconds)
    finally:
        await admin.execute(f'DROP DATABASE IF EXISTS "{_NAME}" WITH (FORCE)')
        await admin.close()


async def _drain(dsn: str, seconds: float) -> float:
    async with asyncpg.create_pool(dsn, min_size=2, max_size=4) as pool:
        driver = pgqueuer.AsyncpgPoolDriver(pool)
        queries = pgqueuer.Queries(driver)
        await queries.install()
        jobs = max(1, int(seconds * _JOBS_A_SECOND / _ENQUEUE_BATCH)) * _ENQUEUE_BATCH
        for _ in range(jobs // _ENQUEUE_BATCH):
            await queries.enqueue(["work"] * _ENQUEUE_BATCH, [b"{}"] * _ENQUEUE_BATCH, [0] * _ENQUEUE_BATCH)
        worker = pgqueuer.PgQueuer(driver)
        done = 0
        last_done_at = 0.0

        @worker.entrypoint("work")
        async def work(_job: pgqueuer.Job) -> None:
            nonlocal done, last_done_at
            done += 1
            last_done_at = time.perf_counter()

        started = time.perf_counter()
        async with asyncio.timeout(60 + 10 * seconds):
            await worker.run(
                dequeue_timeout=timedelta(seconds=1), batch_size=_DEQUEUE_BATCH, mode=QueueExecutionMode.drain
            )
        if done != jobs:
            raise RuntimeError(f"PgQueuer ran {done} of {jobs} jobs")
        return done / (last_done_at - started)

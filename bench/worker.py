"""Calls through a real worker process and the provider emulator: how soon they start, and how many a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx

from app.db.listen import REQUESTS
from app.db.pool import Database
from app.requests.records import SubmitRequest
from app.requests.service import RequestService
from bench.claims import MODEL, PROVIDER, prepare
from bench.place import open_services, process, resident_mb
from bench.table import Row, at_most, measured

_SAMPLES = 200
_CALLS_A_SECOND = 800
"""Assumed, to submit a backlog that lasts about as long as asked for."""
_FINAL = ("COMPLETED", "FAILED", "CANCELLED")
_MOMENT_SECONDS = 0.01


class Finished:
    """Hears of finished requests, so that nothing polls the database while it is measured."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self._connection.add_listener(REQUESTS, lambda *_: self._changed.set())

    async def wait(self, request_ids: Sequence[str]) -> None:
        """Returns when all of them are finished."""
        async with asyncio.timeout(120):
            while await self._connection.fetchval(
                "SELECT EXISTS (SELECT FROM model_requests WHERE id = ANY ($1) AND status <> ALL ($2))",
                request_ids,
                _FINAL,
            ):
                await self._changed.wait()
                self._changed.clear()
                # A group of notices is one look.
                await asyncio.sleep(_MOMENT_SECONDS)


async def run(database: Database, seconds: float, data_dir: Path) -> list[Row]:
    await prepare(database)
    async with (
        open_services(database, data_dir) as services,
        _listening(database) as finished,
        _emulator() as emulator_url,
        _worker(database, emulator_url) as worker_pid,
    ):
        service = services.requests
        await finished.wait(await service.enqueue([_submission()], workspace_id="default"))
        idle_mb = resident_mb(worker_pid)
        rows = await _pick_up(database, service, finished, emulator_url)
        backlog = [_submission()] * min(10_000, max(200, int(seconds * _CALLS_A_SECOND)))
        started = time.perf_counter()
        ids = await service.enqueue(backlog, workspace_id="default")
        await finished.wait(ids)
        a_second = len(ids) / (time.perf_counter() - started)
        await _check(database)
        busy_mb = resident_mb(worker_pid)
    return [
        *rows,
        measured("calls through one worker and the emulator, both on this machine", a_second, "/s"),
        at_most("RSS of a worker, after its first call", idle_mb, 120, "MB"),
        at_most(f"RSS of a worker, after {len(ids):,} calls", busy_mb, 120, "MB"),
    ]


async def _pick_up(database: Database, service: RequestService, finished: Finished, emulator_url: str) -> list[Row]:
    """One request at a time to an idle worker."""
    async with httpx.AsyncClient(base_url=f"{emulator_url}/_emulator", timeout=30) as control:
        (await control.delete("/record", params={"provider": PROVIDER})).raise_for_status()
        submitted, ids = [], []
        for _ in range(_SAMPLES):
            submitted.append(time.time())
            ids += await service.enqueue([_submission()], workspace_id="default")
            await finished.wait(ids[-1:])
        record = (await control.get("/record", params={"provider": PROVIDER})).json()
    arrivals = sorted(call["arrived"] for call in record["calls"])
    if len(arrivals) != _SAMPLES:
        raise RuntimeError(f"{_SAMPLES} calls were submitted one after the other, and {len(arrivals)} arrived")
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT extract(epoch FROM started_at - created_at)::float8 AS seconds "
            "FROM model_requests WHERE id = ANY ($1)",
            ids,
        )
    started = sorted(row["seconds"] * 1000 for row in rows)
    arrived = sorted((end - begin) * 1000 for begin, end in zip(submitted, arrivals, strict=True))
    return [
        at_most(
            "pick-up: from submit to start, by the database's clock, p50",
            _quantile(started, 0.5),
            10,
            "ms",
            note=f" (p99 {_quantile(started, 0.99):.2f} ms)",
        ),
        measured("  from submit until the provider has the call, p50", _quantile(arrived, 0.5), "ms"),
        measured("  from submit until the provider has the call, p99", _quantile(arrived, 0.99), "ms"),
    ]


def _submission() -> SubmitRequest:
    return SubmitRequest(
        model=MODEL, messages=[{"role": "user", "content": "Which sea is the saltiest?"}], parameters={"max_tokens": 64}
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def _check(database: Database) -> None:
    async with database.connection() as connection:
        bad = await connection.fetch(
            "SELECT status, error, count(*) FROM model_requests "
            "WHERE status <> 'COMPLETED' OR cost_total IS NULL GROUP BY 1, 2"
        )
    if bad:
        raise RuntimeError(f"not every request was completed and charged: {[tuple(row) for row in bad]}")


@asynccontextmanager
async def _listening(database: Database) -> AsyncIterator[Finished]:
    connection = await asyncpg.connect(database.dsn)
    try:
        finished = Finished(connection)
        await finished.start()
        yield finished
    finally:
        await connection.close()


@asynccontextmanager
async def _emulator() -> AsyncIterator[str]:
    arguments = ("-m", "app.cli", "emulate", "--port", "0", "--latency-ms", "0", "--output-tokens", "24")
    with process(*arguments, "--until-stdin-closes") as started:
        assert started.stdout is not None
        line = await asyncio.to_thread(started.stdout.readline)
        if not line:
            raise RuntimeError("the emulator did not start")
        yield str(json.loads(line)["url"])


@asynccontextmanager
async def _worker(database: Database, emulator_url: str) -> AsyncIterator[int]:
    environment = {"DATABASE_URL": database.dsn, "TOLLGATE_LOG_LEVEL": "warning"}
    arguments = ("-m", "app.cli", "work", "--emulator-url", emulator_url, "--until-stdin-closes")
    with process(*arguments, environment=environment) as started:
        yield started.pid

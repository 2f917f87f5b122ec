"""A provider with small limits whose emulator only records, and what must hold there after whatever has happened."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.db.pool import Database
from app.limits.replay import LimitSetting, replay
from app.limits.repository import read_starts
from tests.emulator import Emulator
from tests.worker_process import FINAL, WorkerProcess, wait_until
from tests.workers.work import Work, work_for

MAX_PARALLEL: Final = 3
REQUESTS: Final = 30
WINDOW_SECONDS: Final = 2
DELIVERY_SECONDS: Final = 0.5
LEASE_SECONDS: Final = 1.0
WORKER: Final = {"TOLLGATE_LEASE_SECONDS": f"{LEASE_SECONDS:g}"}


class Trial:
    """MAX_PARALLEL calls at once, REQUESTS starts in any WINDOW_SECONDS."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def worker(self, **environment: str) -> WorkerProcess:
        return WorkerProcess(self.work.dsn, **WORKER | environment)

    async def submit(self, count: int, **changes: Any) -> list[str]:
        return [await self.work.submit(**changes) for _ in range(count)]

    async def until(self, condition: str, *arguments: object, timeout_seconds: float = 30) -> None:
        await wait_until(self.work.dsn, condition, *arguments, timeout_seconds=timeout_seconds)

    async def check(self, *, timeout_seconds: float = 30) -> Counter[str]:
        """The aftermath. Answers how many requests ended in each state."""
        await self.until(
            "NOT EXISTS (SELECT FROM model_requests WHERE status IN ('PENDING', 'PROCESSING'))",
            timeout_seconds=timeout_seconds,
        )
        # A provider may see that its client has left a moment after the client has written so.
        await asyncio.to_thread(self.work.emulator.wait, "acme", ended=self.work.record()["arrivals"])
        record = self.work.record()
        assert record["violation_counts"] == {}, record["violations"][:5]
        async with self.work.database.connection() as connection:
            requests = await connection.fetch("SELECT id, status::text, attempt_count FROM model_requests")
            attempts = await connection.fetch(
                "SELECT request_id, lease_id, status::text, first_chunk_at FROM request_attempts"
            )
            lines = await connection.fetch(
                "SELECT request_id, lease_id, unit::text, quantity, is_estimated FROM ledger_entries"
            )
            provider_id = await connection.fetchval("SELECT id FROM llm_providers WHERE name = 'acme'")
            starts = await read_starts(connection, provider_id)
        setting = LimitSetting(datetime.min.replace(tzinfo=UTC), MAX_PARALLEL, REQUESTS, None)
        assert replay(starts, [setting], window=timedelta(seconds=WINDOW_SECONDS)) == []
        assert all(start.ended_at is not None for start in starts)
        assert {request["status"] for request in requests} <= set(FINAL)
        _compare_ledger(record["calls"], attempts, lines)
        return Counter(request["status"] for request in requests)


def _compare_ledger(calls: list[dict[str, Any]], attempts: list[Any], lines: list[Any]) -> None:
    """What was charged is what the provider served.

    An attempt that succeeded has the counts of a call that was answered whole. One that was cut after its first chunk
    is charged an estimate, one whose process was lost is not charged, and nothing else is.
    """
    charged: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(dict)
    estimated = set()
    for line in lines:
        key = (line["request_id"], line["lease_id"])
        charged[key][line["unit"]] = line["quantity"]
        if line["is_estimated"]:
            estimated.add(key)
    served: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        served[call["key"]].append(call)
    made = Counter(attempt["request_id"] for attempt in attempts)
    for attempt in attempts:
        key = (attempt["request_id"], attempt["lease_id"])
        whole = [call for call in served[attempt["request_id"]] if call["outcome"] == "answered"]
        if attempt["status"] == "SUCCEEDED":
            assert key not in estimated
            counts = charged.pop(key)
            assert counts in [
                {
                    unit: Decimal(call[name])
                    for unit, name in (("INPUT_TOKENS", "input_tokens"), ("OUTPUT_TOKENS", "output_tokens"))
                    if call[name]
                }
                for call in whole
            ]
        elif attempt["status"] == "LOST" or attempt["first_chunk_at"] is None:
            assert key not in charged
        else:
            assert key in estimated
            charged.pop(key)
    assert charged == {}
    # Nothing was called beside its attempts.
    assert all(len(of_request) <= made[id] for id, of_request in served.items())


@asynccontextmanager
async def trial_on(database: Database, dsn: str, emulator: Emulator) -> AsyncIterator[Trial]:
    limits: dict[str, Any] = {"max_parallel": MAX_PARALLEL, "requests_per_minute": REQUESTS}
    async with work_for(
        database,
        dsn,
        emulator,
        window_milliseconds=WINDOW_SECONDS * 1000,
        delivery_milliseconds=round(DELIVERY_SECONDS * 1000),
        **limits,
    ) as work:
        work.configure(
            enforce="record", window_seconds=WINDOW_SECONDS, input_tokens=10, output_tokens=(5, 20), **limits
        )
        yield Trial(work)

"""A run of workers that get killed under load, and what must hold after it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app.db.pool import Database
from app.limits.audit import Audit
from app.limits.log import LogLine
from app.limits.service import LimitService
from app.requests.records import SubmitRequest
from tests.catalog_rows import CatalogRow, insert_model
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess, request_service, wait_finished, wait_until

LEASE_SECONDS = 1
_MAX_OUTPUT_TOKENS = 40
_SOME_RUN_OR_NONE_IS_LEFT = (
    "(EXISTS (SELECT FROM model_requests WHERE status = 'PROCESSING')"
    " OR NOT EXISTS (SELECT FROM model_requests WHERE status = 'PENDING'))"
)


@dataclass(frozen=True, slots=True)
class Limits:
    max_parallel: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """`before` and `after` are the limits per window, changed midway. `kills` workers die, `kill_every` apart."""

    before: Limits
    after: Limits
    window_seconds: float
    delivery_seconds: float
    requests: int
    workers: int = 3
    submitters: int = 2
    kills: int = 6
    kill_every_seconds: float = 1.0
    latency_ms: tuple[int, int] = (30, 150)
    timeout_seconds: float = 90


@dataclass(frozen=True, slots=True)
class Findings:
    record: dict[str, Any]
    log: list[LogLine]
    statuses: dict[str, int]
    charged_leases: dict[str, int]
    """Per request, how many of its leases have ledger lines."""
    lost_attempts: int

    def replayed(self, window_seconds: float) -> list[Any]:
        """The violations that `tollgate limits check` finds, by the limits that the database says were in force."""
        audit = Audit(window=timedelta(seconds=window_seconds))
        for line in self.log:
            audit.take(line)
        (audited,) = audit.providers.values()
        assert audited.replay is not None
        assert len(audited.settings) == 2
        assert audited.replay.starts == len(self.log) - 2
        return audited.violations


async def run_scenario(scenario: Scenario, database: Database, dsn: str, emulator: Emulator, seed: int) -> Findings:
    row = await _set_up(scenario, database, emulator)
    chance = random.Random(seed)
    workers = [WorkerProcess(dsn, TOLLGATE_LEASE_SECONDS=str(LEASE_SECONDS)) for _ in range(scenario.workers)]
    try:
        async with asyncio.TaskGroup() as group:
            submitting = [
                group.create_task(_submit(database, row, scenario.requests // scenario.submitters, number))
                for number in range(scenario.submitters)
            ]
            group.create_task(_kill(workers, scenario, chance, database, dsn))
            group.create_task(_change_limits(scenario, database, row, emulator))
        ids = [id for task in submitting for id in task.result()]
        await wait_finished(dsn, ids, timeout_seconds=scenario.timeout_seconds)
    finally:
        for worker in workers:
            worker.kill()
    return await _findings(database, emulator)


async def _set_up(scenario: Scenario, database: Database, emulator: Emulator) -> CatalogRow:
    emulator.configure(
        "acme",
        latency_ms=scenario.latency_ms,
        output_tokens=(5, _MAX_OUTPUT_TOKENS),
        enforce="record",
        window_seconds=scenario.window_seconds,
        grace_seconds=scenario.delivery_seconds,
        **_emulated(scenario.before),
    )
    async with database.connection() as connection:
        return await insert_model(
            connection,
            base_url=emulator.url("acme"),
            max_parallel=scenario.before.max_parallel,
            requests_per_minute=scenario.before.requests,
            tokens_per_minute=scenario.before.tokens,
            window_milliseconds=round(scenario.window_seconds * 1000),
            delivery_milliseconds=round(scenario.delivery_seconds * 1000),
        )


def _emulated(limits: Limits) -> dict[str, int]:
    return {
        "max_parallel": limits.max_parallel,
        "requests_per_minute": limits.requests,
        "tokens_per_minute": limits.tokens,
    }


async def _submit(database: Database, row: CatalogRow, count: int, number: int) -> list[str]:
    ids: list[str] = []
    async with request_service(database) as service:
        for start in range(0, count, 10):
            batch = [
                SubmitRequest(
                    model=row.ref,
                    messages=[{"role": "user", "content": f"Request {index} of submitter {number}"}],
                    parameters={"max_tokens": _MAX_OUTPUT_TOKENS},
                    priority=index % 3,
                )
                for index in range(start, min(start + 10, count))
            ]
            ids += await service.enqueue(batch, workspace_id="default")
    return ids


async def _kill(
    workers: Sequence[WorkerProcess], scenario: Scenario, chance: random.Random, database: Database, dsn: str
) -> None:
    """Kills workers that hold a call, each at some instant of it; where all calls have ended, any worker."""
    for _ in range(scenario.kills):
        # The passing of time is what is tested here: kills fall anywhere in the life of a call.
        await asyncio.sleep(scenario.kill_every_seconds * chance.uniform(0.5, 1.5))
        await wait_until(dsn, _SOME_RUN_OR_NONE_IS_LEFT, timeout_seconds=scenario.timeout_seconds)
        async with database.connection() as connection:
            held = await connection.fetch("SELECT DISTINCT worker_id FROM model_requests WHERE status = 'PROCESSING'")
        busy = [worker for worker in workers if any(f"-{worker.process.pid}-" in row["worker_id"] for row in held)]
        await asyncio.to_thread(chance.choice(busy or workers).restart)


async def _change_limits(scenario: Scenario, database: Database, row: CatalogRow, emulator: Emulator) -> None:
    await asyncio.to_thread(
        emulator.wait, "acme", arrivals=scenario.requests // 2, timeout_seconds=scenario.timeout_seconds
    )
    async with database.connection() as connection:
        await connection.execute(
            """
            UPDATE llm_providers SET max_parallel_requests = $2, requests_per_minute = $3, tokens_per_minute = $4,
                   updated_at = now()
             WHERE id = $1
            """,
            row.provider_id,
            scenario.after.max_parallel,
            scenario.after.requests,
            scenario.after.tokens,
        )
    await asyncio.to_thread(emulator.configure, "acme", **_emulated(scenario.after))


async def _findings(database: Database, emulator: Emulator) -> Findings:
    log = [line async for line in LimitService(database).read_log()]
    async with database.connection() as connection:
        statuses = await connection.fetch("SELECT status::text, count(*) FROM model_requests GROUP BY 1")
        charged = await connection.fetch(
            """
            SELECT r.id, count(DISTINCT l.lease_id) AS leases
              FROM model_requests r LEFT JOIN ledger_entries l ON l.request_id = r.id GROUP BY r.id
            """
        )
        lost = await connection.fetchval("SELECT count(*) FROM request_attempts WHERE status = 'LOST'")
    return Findings(
        record=emulator.record("acme", calls=False),
        log=log,
        statuses={row["status"]: row["count"] for row in statuses},
        charged_leases={row["id"]: row["leases"] for row in charged},
        lost_attempts=lost,
    )

"""Enqueueing, and claiming and finishing under limits, as fast as one provider's queue goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from app.catalog.snapshot import Snapshot
from app.db.ids import new_id
from app.db.pool import Database
from app.execution.claims import MAX_CLAIM
from app.execution.finisher import MAX_GROUP
from app.limits import repository as limits
from app.limits.records import ClaimedRequest
from app.prices.calculation import price_usage
from app.prices.records import Usage
from app.providers.messages import Text
from app.providers.operations import ChatOutput, Choice, FinishReason
from app.requests import repository as requests
from app.requests.records import AttemptResult, Outcome, SubmitRequest
from app.requests.service import RequestService
from bench.place import open_services
from bench.table import Row, at_least, compared, measured
from seed.service import seed_reference

PROVIDER = "openai"
MODEL = "openai:gpt-4o"
_ENQUEUE_BATCH = 1_000
_ENQUEUERS = 2
_HIGH_LIMITS = (1_000_000, 100_000_000, 2_000_000_000)
"""So high that all is admitted: every start is counted, reserved and settled all the same."""


async def prepare(database: Database) -> str:
    """Seeds, and raises the limits of one provider. Answers its id."""
    await seed_reference(database)
    async with database.connection() as connection:
        return str(
            await connection.fetchval(
                "UPDATE llm_providers SET max_parallel_requests = $2, requests_per_minute = $3, "
                "tokens_per_minute = $4, updated_at = now() WHERE name = $1 RETURNING id",
                PROVIDER,
                *_HIGH_LIMITS,
            )
        )


async def run(database: Database, seconds: float, data_dir: Path, drain_peer: float | None) -> list[Row]:
    """`drain_peer`: the jobs a second of a queue without limits, for comparison."""
    provider_id = await prepare(database)
    async with open_services(database, data_dir) as services:
        enqueued, enqueue_rate = await enqueue(services.requests, seconds)
        await _checkpoint(database)
        drained, drain_rate = await drain(database, provider_id, services.snapshots.current, seconds)
        await _check(database, drained)
    what = f"claim and finish, one provider, limits on, claims of {MAX_CLAIM}, finishes of {MAX_GROUP}"
    return [
        at_least(f"enqueue, batches of {_ENQUEUE_BATCH:,}", enqueue_rate, 50_000),
        at_least(what, drain_rate, 5_000),
        *(
            [compared("claim and finish, against PgQueuer without limits", drain_rate, drain_peer)]
            if drain_peer
            else []
        ),
        measured("  of these requests, enqueued and drained", min(enqueued, drained), "requests"),
    ]


async def enqueue(service: RequestService, seconds: float) -> tuple[int, float]:
    """How many were written, and how many a second."""
    submission = SubmitRequest(
        model=MODEL,
        messages=[
            {"role": "system", "content": "You answer in one sentence."},
            {"role": "user", "content": "Which of the seven seas is the saltiest, and why?"},
        ],
        parameters={"max_tokens": 64, "temperature": 0.2},
        metadata={"task": "bench"},
    )
    batch = [submission] * _ENQUEUE_BATCH
    await service.enqueue(batch, workspace_id="default")
    written = 0
    started = time.perf_counter()

    async def submit() -> None:
        nonlocal written
        while time.perf_counter() - started < seconds:
            ids = await service.enqueue(batch, workspace_id="default")
            written += len(ids)  # not in one statement: the sum would be read before the wait

    await asyncio.gather(*(submit() for _ in range(_ENQUEUERS)))
    return written, written / (time.perf_counter() - started)


async def drain(database: Database, provider_id: str, snapshot: Snapshot, seconds: float) -> tuple[int, float]:
    """Claims and finishes until `seconds` have passed or the queue is empty. Claims and finishes run side by side."""
    queue: asyncio.Queue[Sequence[ClaimedRequest] | None] = asyncio.Queue(maxsize=8)
    finished = 0
    started = time.perf_counter()

    async def claim() -> None:
        async with database.connection() as connection:
            while time.perf_counter() - started < seconds:
                claimed = await limits.claim_requests(
                    connection, provider_id, worker_id="bench", capacity=MAX_CLAIM, lease_seconds=30
                )
                assert claimed is not None
                if not claimed.requests:
                    break
                await queue.put(claimed.requests)
        await queue.put(None)

    async def finish() -> None:
        nonlocal finished
        is_open = True
        while is_open:
            group: list[ClaimedRequest] = []
            while is_open and len(group) + MAX_CLAIM <= MAX_GROUP and (not group or not queue.empty()):
                batch = await queue.get()
                is_open = batch is not None
                group += batch or ()
            if not group:
                continue
            results = [result_of(request, snapshot) for request in group]
            async with database.transaction() as connection:
                statuses = await requests.finish_requests(connection, results)
            if len(statuses) != len(group):
                raise RuntimeError(f"{len(group) - len(statuses)} requests were not finished")
            finished += len(group)

    await asyncio.gather(claim(), finish())
    return finished, finished / (time.perf_counter() - started)


def result_of(request: ClaimedRequest, snapshot: Snapshot) -> AttemptResult:
    """What a worker writes for a call that went well."""
    usage = Usage(input_tokens=31, output_tokens=24)
    model_id = request.model_id
    assert model_id is not None
    receipt = price_usage(usage, lambda unit: snapshot.price_at(model_id, unit, request.started_at))
    assert receipt.total is not None
    assert receipt.total > Decimal(0)
    text = "The Red Sea is: it loses more to the sun than its rivers bring it."
    return AttemptResult(
        request_id=request.request_id,
        lease_id=request.lease_id,
        outcome=Outcome.COMPLETED,
        settled_tokens=usage.total_tokens,
        output=ChatOutput([Choice([Text(text)], FinishReason.STOP)]),
        output_text=text,
        usage=usage,
        cost=receipt,
        response_model="gpt-4o-2024-08-06",
        provider_request_id=new_id(),
        finish_reason="stop",
        http_status=200,
    )


async def _checkpoint(database: Database) -> None:
    """So that the next measurement does not pay for what the last one wrote."""
    async with database.connection() as connection:
        await connection.execute("CHECKPOINT")
        await connection.execute("ANALYZE")


async def _check(database: Database, finished: int) -> None:
    """Each request that was finished has its two ledger lines, its attempt and its settled start."""
    async with database.connection() as connection:
        counts = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM model_requests WHERE status = 'COMPLETED' AND cost_total > 0) AS completed,
                   (SELECT count(*) FROM ledger_entries) / 2 AS charged,
                   (SELECT count(*) FROM request_attempts WHERE status = 'SUCCEEDED') AS attempted,
                   (SELECT count(*) FROM provider_starts WHERE settled_tokens = 55 AND ended_at IS NOT NULL) AS settled
            """
        )
    assert counts is not None
    if set(counts.values()) != {finished}:
        raise RuntimeError(f"{finished} requests were finished, but the database says {dict(counts)}")

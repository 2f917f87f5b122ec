"""The worker: claims what the limits admit, runs it, writes how it ended, and sleeps until it can be of use again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog

from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.listen import CANCEL, WORK, Listener
from app.db.pool import Database
from app.execution.attempt import Attempt
from app.execution.chunks import ChunkLog
from app.execution.executor import Executor, Interruption
from app.execution.finisher import Finisher
from app.execution.leases import LeaseKeeper
from app.limits import repository
from app.limits.records import Claim, ClaimedRequest
from app.providers.operations import request_from_json

MAX_CLAIM: Final = 200
_CLAIM_RETRY_SECONDS: Final = 0.5
_LAST_CLAIM_SECONDS: Final = 5.0
_DATABASE_TROUBLE: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Call:
    """A running attempt. It can be stopped while it executes, not while its result is being written."""

    task: asyncio.Task[None] | None = None
    interruption: Interruption | None = None
    is_executing: bool | None = None
    """None: not yet. A task that is cancelled before its first step would end without a result."""

    def stop(self, why: Interruption) -> None:
        if self.is_executing is not False and self.interruption is None and self.task is not None:
            self.interruption = why
            if self.is_executing:
                self.task.cancel()

    def begin(self) -> None:
        self.is_executing = True
        if self.interruption is not None and self.task is not None:
            self.task.cancel()


class Worker:
    """One per process. `listener` must not be started yet: the worker subscribes to it."""

    def __init__(
        self,
        *,
        worker_id: str,
        database: Database,
        listener: Listener,
        snapshots: SnapshotHolder,
        executor: Executor,
        finisher: Finisher,
        leases: LeaseKeeper,
        chunks: ChunkLog,
        concurrency: int,
        lease_seconds: float,
    ) -> None:
        self.worker_id = worker_id
        self._database = database
        self._executor = executor
        self._finisher = finisher
        self._leases = leases
        self._chunks = chunks
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._calls: dict[tuple[str, str], _Call] = {}
        self._due: dict[str, float] = {}
        """Per provider, the time.monotonic() instant from which a claim can be of use."""
        self._stopping = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        listener.subscribe(WORK, self._wake_provider)
        listener.subscribe(CANCEL, leases.request_cancel)
        listener.on_connect(self._look_everywhere)
        snapshots.on_change(self._wake_all)

    @property
    def running(self) -> int:
        return len(self._calls)

    async def run(self, stop: asyncio.Event, *, drain_seconds: float, hurry: asyncio.Event | None = None) -> None:
        """Until `stop` is set; then lets calls end for `drain_seconds`, or until `hurry`, and gives the others back."""
        self._finisher.start()
        self._leases.start()
        self._chunks.start()
        claiming = asyncio.create_task(self._claim_for_ever(), name="claims")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if claiming.done():
                await claiming
        finally:
            stopping.cancel()
            await self._end_claims(claiming)
            await asyncio.gather(claiming, stopping, return_exceptions=True)
            await self._drain(drain_seconds, hurry or asyncio.Event())
            await self._leases.stop()
            await self._finisher.stop()
            await self._chunks.stop()

    async def _end_claims(self, claiming: asyncio.Task[None]) -> None:
        """A claim that is under way may have leased requests: it is awaited, so that they are run or given back."""
        self._stopping = True
        self._wake.set()
        await asyncio.wait({claiming}, timeout=_LAST_CLAIM_SECONDS)
        claiming.cancel()

    async def _drain(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        if self._calls:
            _log.info("draining", running=len(self._calls), seconds=drain_seconds)
        ends = [asyncio.create_task(event.wait()) for event in (self._idle, hurry)]
        await asyncio.wait(ends, timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if not self._calls:
            return
        _log.warning("drain_ended_early", given_back=len(self._calls))
        for call in list(self._calls.values()):
            call.stop(Interruption.DRAINED)
        try:
            async with asyncio.timeout(self._lease_seconds):
                await self._idle.wait()
        except TimeoutError:
            # The database is away. The leases run out, and other workers take the requests back.
            _log.error("results_not_written", requests=len(self._calls))
            tasks = [call.task for call in self._calls.values() if call.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _wake_provider(self, provider_id: str) -> None:
        self._due[provider_id] = 0.0
        self._wake.set()

    def _wake_all(self, snapshot: Snapshot) -> None:
        """Limits may have been edited."""
        for provider in snapshot.providers:
            self._due[provider.id] = 0.0
        self._wake.set()

    async def _look_everywhere(self) -> None:
        """At the start, and after a time in which notifications may have been missed."""
        async with self._database.connection() as connection:
            for provider_id in await repository.providers_with_work(connection):
                self._due[provider_id] = 0.0
        self._wake.set()

    async def _claim_for_ever(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if len(self._calls) < self._concurrency:
                now = time.monotonic()
                for provider_id in [id for id, due in self._due.items() if due <= now]:
                    if not self._stopping:
                        await self._claim(provider_id)
            if not self._stopping:
                await self._sleep()

    async def _sleep(self) -> None:
        """Until woken, or until the first provider is due; while every place is taken, until one comes free."""
        seconds = None
        if self._due and len(self._calls) < self._concurrency:
            seconds = max(0.0, min(self._due.values()) - time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _claim(self, provider_id: str) -> None:
        capacity = min(MAX_CLAIM, self._concurrency - len(self._calls))
        if capacity <= 0:
            return
        claimed_at = time.monotonic()
        # Before the claim, so that a notification that comes while it runs makes the provider due again.
        self._due.pop(provider_id, None)
        try:
            async with self._database.connection() as connection:
                claim = await repository.claim_requests(
                    connection,
                    provider_id,
                    worker_id=self.worker_id,
                    capacity=capacity,
                    lease_seconds=self._lease_seconds,
                )
        except _DATABASE_TROUBLE as error:
            _log.warning("claim_failed", provider_id=provider_id, error=str(error), retry_seconds=_CLAIM_RETRY_SECONDS)
            self._set_due(provider_id, time.monotonic() + _CLAIM_RETRY_SECONDS)
            return
        if claim is None:
            return
        for request in claim.requests:
            self._start(request, claim, claimed_at)
        if len(claim.requests) == capacity:
            self._set_due(provider_id, 0.0)
        elif claim.wait_seconds is not None:
            self._set_due(provider_id, time.monotonic() + claim.wait_seconds)

    def _set_due(self, provider_id: str, due: float) -> None:
        self._due[provider_id] = min(due, self._due.get(provider_id, due))

    def _start(self, request: ClaimedRequest, claim: Claim, claimed_at: float) -> None:
        call = _Call()
        key = (request.request_id, request.lease_id)
        self._calls[key] = call
        self._idle.clear()
        self._leases.hold(request, claimed_at=claimed_at, stop=call.stop)
        assert request.payload is not None
        assert request.parameters is not None
        started = claimed_at + claim.waited_seconds
        attempt = Attempt(
            request,
            request=request_from_json(request.payload),
            parameters=request.parameters,
            send_by=started + claim.send_within_seconds,
            started=started,
        )
        call.task = asyncio.create_task(self._run(call, attempt, claim.catalog_revision), name=request.request_id)
        call.task.add_done_callback(lambda task: self._end(key, request, task))

    async def _run(self, call: _Call, attempt: Attempt, catalog_revision: int) -> None:
        with structlog.contextvars.bound_contextvars(request_id=attempt.claim.request_id):
            call.begin()
            result = await self._executor.execute(
                attempt,
                catalog_revision=catalog_revision,
                interruption=lambda: call.interruption,
                sink=self._chunks.sink(attempt.claim) if attempt.claim.is_streamed else None,
            )
            call.is_executing = False
            if result is None:
                return
            status = await self._finisher.finish(result)
            if status is None:
                _log.warning("lease_was_lost", outcome=result.outcome)

    def _end(self, key: tuple[str, str], request: ClaimedRequest, task: asyncio.Task[None]) -> None:
        self._leases.release(request)
        self._chunks.forget(request)
        del self._calls[key]
        if not self._calls:
            self._idle.set()
        # A place is free here; whether the provider has one too, the next claim says.
        self._due[request.provider_id] = 0.0
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("call_task_failed", request_id=request.request_id, error=repr(error))

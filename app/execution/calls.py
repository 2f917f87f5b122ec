"""The calls that a process has under way: each held under its lease, run, and its end written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.execution.attempt import Attempt, ChunkSink
from app.execution.chunks import ChunkLog
from app.execution.executor import Executor, Interruption
from app.execution.finisher import Finisher
from app.execution.leases import LeaseKeeper
from app.execution.observe import observation_of
from app.limits.records import Claim, ClaimedRequest
from app.observability.observation import Observer
from app.requests.records import AttemptResult, ModelRequestStatus

_log = structlog.get_logger(__name__)

WhenEnded = Callable[[AttemptResult | None, ModelRequestStatus | None], None]
"""Gets the result and the request's new status once that is committed; None where the lease was lost."""


@dataclass(slots=True)
class RunningCall:
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


class Calls:
    """One per process."""

    def __init__(
        self,
        executor: Executor,
        finisher: Finisher,
        leases: LeaseKeeper,
        chunks: ChunkLog,
        observer: Observer | None = None,
    ) -> None:
        self._executor = executor
        self._finisher = finisher
        self._leases = leases
        self._chunks = chunks
        self._observer = observer
        self._calls: dict[tuple[str, str], RunningCall] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._calls)

    def start_services(self) -> None:
        self._finisher.start()
        self._leases.start()
        self._chunks.start()

    async def stop_services(self) -> None:
        """To be called after `drain`."""
        await self._leases.stop()
        await self._finisher.stop()
        await self._chunks.stop()

    def start(
        self,
        attempt: Attempt,
        claim: Claim,
        *,
        claimed_at: float,
        sink: ChunkSink | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
        when_ended: WhenEnded,
    ) -> RunningCall:
        """Runs an attempt in a task of its own. `claimed_at`: time.monotonic() from before the claim was sent."""
        call = RunningCall()
        key = (attempt.claim.request_id, attempt.claim.lease_id)
        self._calls[key] = call
        self._idle.clear()
        self._leases.hold(attempt.claim, claimed_at=claimed_at, stop=call.stop)
        if sink is None and attempt.claim.is_streamed:
            sink = self._chunks.sink(attempt.claim)
        running = self._run(call, attempt, claim.catalog_revision, sink, may_repeat, when_ended)
        call.task = asyncio.create_task(running, name=attempt.claim.request_id)
        call.task.add_done_callback(lambda task: self._end(key, attempt.claim, task))
        return call

    async def _run(
        self,
        call: RunningCall,
        attempt: Attempt,
        catalog_revision: int,
        sink: ChunkSink | None,
        may_repeat: Callable[[], bool],
        when_ended: WhenEnded,
    ) -> None:
        result: AttemptResult | None = None
        status: ModelRequestStatus | None = None
        try:
            with structlog.contextvars.bound_contextvars(request_id=attempt.claim.request_id):
                call.begin()
                result = await self._executor.execute(
                    attempt,
                    catalog_revision=catalog_revision,
                    interruption=lambda: call.interruption,
                    sink=sink,
                    may_repeat=may_repeat,
                )
                call.is_executing = False
                called_at = time.monotonic()
                if result is not None:
                    status = await self._finisher.finish(result)
                    if status is None:
                        _log.warning("lease_was_lost", outcome=result.outcome)
        finally:
            # Before anybody is told: who then asks for the next call must find the place free.
            self._calls.pop((attempt.claim.request_id, attempt.claim.lease_id), None)
            when_ended(result, status)
        if self._observer is not None:
            observation = observation_of(
                attempt, result, is_streamed=sink is not None, called_at=called_at, ended_at=time.monotonic()
            )
            # After who was told has had its turn: nobody waits for what is observed.
            asyncio.get_running_loop().call_soon(self._observer.attempt_ended, observation)

    def _end(self, key: tuple[str, str], claim: ClaimedRequest, task: asyncio.Task[None]) -> None:
        self._leases.release(claim)
        self._chunks.forget(claim)
        self._calls.pop(key, None)
        if not self._calls:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("call_task_failed", request_id=claim.request_id, error=repr(error))

    async def drain(self, *, seconds: float, write_seconds: float, hurry: asyncio.Event) -> None:
        """Lets calls end for `seconds`, or until `hurry`; stops the others, whose results get `write_seconds`."""
        if self._calls:
            _log.info("draining", running=len(self._calls), seconds=seconds)
        ends = [asyncio.create_task(event.wait()) for event in (self._idle, hurry)]
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if not self._calls:
            return
        _log.warning("drain_ended_early", given_back=len(self._calls))
        for call in list(self._calls.values()):
            call.stop(Interruption.DRAINED)
        try:
            async with asyncio.timeout(write_seconds):
                await self._idle.wait()
        except TimeoutError:
            # The database is away. The leases run out, and other workers take the requests back.
            _log.error("results_not_written", requests=len(self._calls))
            tasks = [call.task for call in self._calls.values() if call.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

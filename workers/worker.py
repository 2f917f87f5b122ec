"""The worker: runs what the limits admit, and drains when it is told to stop."""

from __future__ import annotations

import asyncio

from app.catalog.snapshots import SnapshotHolder
from app.db.listen import CANCEL, Listener
from app.db.pool import Database
from app.execution.attempt import Attempt
from app.execution.calls import Calls
from app.execution.claims import ClaimLoop
from app.execution.clock import SteadyClock
from app.execution.leases import LeaseKeeper
from app.limits.records import Claim, ClaimedRequest
from app.providers.operations import request_from_json


class Worker:
    """One per process. `listener` must not be started yet: the worker subscribes to it."""

    def __init__(
        self,
        *,
        worker_id: str,
        database: Database,
        clock: SteadyClock,
        listener: Listener,
        snapshots: SnapshotHolder,
        calls: Calls,
        leases: LeaseKeeper,
        concurrency: int,
        lease_seconds: float,
    ) -> None:
        self.worker_id = worker_id
        self._calls = calls
        self._lease_seconds = lease_seconds
        self._claims = ClaimLoop(
            worker_id=worker_id,
            owner_id=None,
            database=database,
            clock=clock,
            listener=listener,
            snapshots=snapshots,
            lease_seconds=lease_seconds,
            capacity=lambda: concurrency - len(calls),
            take=self._take,
        )
        listener.subscribe(CANCEL, leases.request_cancel)

    @property
    def running(self) -> int:
        return len(self._calls)

    async def run(self, stop: asyncio.Event, *, drain_seconds: float, hurry: asyncio.Event | None = None) -> None:
        """Until `stop` is set; then lets calls end for `drain_seconds`, or until `hurry`, and gives the others back."""
        self._calls.start_services()
        claiming = asyncio.create_task(self._claims.run(), name="claims")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if claiming.done():
                await claiming
        finally:
            stopping.cancel()
            await self._claims.stop(claiming)
            await self._calls.drain(
                seconds=drain_seconds, write_seconds=self._lease_seconds, hurry=hurry or asyncio.Event()
            )
            await self._calls.stop_services()

    def _take(self, claim: Claim, provider_id: str, claimed_at: float) -> None:
        for request in claim.requests:
            self._start(request, claim, provider_id, claimed_at)

    def _start(self, request: ClaimedRequest, claim: Claim, provider_id: str, claimed_at: float) -> None:
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
        call = self._calls.start(attempt, claim, claimed_at=claimed_at, when_ended=lambda _result, _status: None)
        assert call.task is not None
        # A place is free then; whether the provider has one too, the next claim says.
        call.task.add_done_callback(lambda _task: self._claims.wake(provider_id))

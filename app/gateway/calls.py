"""The calls whose clients wait at this process: the same rows, claims, steps and ledger as queued ones.

Submissions that arrive while one group is being written gather for the next, so that under load the database is asked
less often per call. What cannot start at once waits in the same queue as everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import structlog

from app.catalog.snapshots import SnapshotHolder
from app.db.listen import CANCEL, Listener
from app.db.pool import Database
from app.errors import DatabaseUnavailable, NotFound
from app.execution.attempt import Attempt
from app.execution.calls import Calls, RunningCall
from app.execution.claims import ClaimLoop
from app.execution.executor import Interruption
from app.execution.leases import LeaseKeeper
from app.gateway.stream import ChunkStream
from app.limits.records import Claim, ClaimedRequest
from app.providers.operations import OperationRequest
from app.requests import repository
from app.requests.records import AttemptResult, ModelRequestStatus, NewRequest

MAX_GROUP: Final = 200
_DATABASE_TROUBLE: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call has a permit. `wait_seconds`: how long it waited for it. `permits_left`: how many more could start."""

    wait_seconds: float
    permits_left: int


@dataclass(slots=True, eq=False)
class LiveCall:
    """One client's call. `ended` has its last result; None where its lease was lost with its outcome unknown."""

    row: NewRequest
    request: OperationRequest
    parameters: dict[str, Any]
    admitted: asyncio.Future[Admitted]
    ended: asyncio.Future[AttemptResult | None]
    chunks: ChunkStream | None
    """None where the answer is not streamed."""
    since: float = field(default_factory=time.monotonic)
    running: RunningCall | None = None
    is_cancelled: bool = False

    def may_repeat(self) -> bool:
        return self.chunks is None or not self.chunks.has_delivered


class GatewayCalls:
    """One per process. `listener` must not be started yet: this subscribes to it."""

    def __init__(
        self,
        *,
        owner_id: str,
        database: Database,
        listener: Listener,
        snapshots: SnapshotHolder,
        calls: Calls,
        leases: LeaseKeeper,
        concurrency: int,
        lease_seconds: float,
    ) -> None:
        self.owner_id = owner_id
        self._database = database
        self._calls = calls
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._live: dict[str, LiveCall] = {}
        self._new: list[LiveCall] = []
        self._wake = asyncio.Event()
        self._waits: dict[str, float | None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._claims = ClaimLoop(
            worker_id=owner_id,
            owner_id=owner_id,
            database=database,
            listener=listener,
            snapshots=snapshots,
            lease_seconds=lease_seconds,
            # Where nobody waits here, there is nothing to claim.
            capacity=lambda: self._capacity() if len(self._live) > len(calls) else 0,
            take=self._take,
        )
        listener.subscribe(CANCEL, leases.request_cancel)

    def __len__(self) -> int:
        """Calls that wait or run."""
        return len(self._live)

    async def start(self) -> None:
        await self._keep_owner()
        self._calls.start_services()
        self._tasks = [
            asyncio.create_task(self._submit_groups(), name="gateway submissions"),
            asyncio.create_task(self._claims.run(), name="gateway claims"),
            asyncio.create_task(self._live_on(), name="gateway owner"),
        ]

    async def stop(self, *, drain_seconds: float) -> None:
        """Lets running calls end; those that wait are cancelled by their clients' connections closing."""
        submitting, claiming, living = self._tasks
        await self._claims.stop(claiming)
        await self._calls.drain(seconds=drain_seconds, write_seconds=self._lease_seconds, hurry=asyncio.Event())
        for task in (submitting, living):
            task.cancel()
        await asyncio.gather(submitting, living, return_exceptions=True)
        await self._calls.stop_services()
        async with self._database.connection() as connection:
            await repository.remove_owner(connection, self.owner_id)

    def submit(self, row: NewRequest, request: OperationRequest, *, stream: bool) -> LiveCall:
        """Starts waiting for a permit. The caller awaits `admitted` and `ended`, or gives up with `cancel`."""
        loop = asyncio.get_running_loop()
        call = LiveCall(
            row=row,
            request=request,
            parameters=row.parameters,
            admitted=loop.create_future(),
            ended=loop.create_future(),
            chunks=ChunkStream() if stream else None,
        )
        self._live[row.id] = call
        self._new.append(call)
        self._wake.set()
        return call

    async def cancel(self, call: LiveCall) -> ModelRequestStatus | None:
        """Ends a call that waits at once, and stops one that runs. Answers the status it then has."""
        call.is_cancelled = True
        if call in self._new:
            self._new.remove(call)
            self._end(call, None)
            return None
        if call.running is not None:
            call.running.stop(Interruption.CANCELLED)
            return ModelRequestStatus.PROCESSING
        async with self._database.transaction() as connection:
            status = await repository.cancel_request(connection, call.row.workspace_id, call.row.id)
        if status is ModelRequestStatus.CANCELLED:
            self._end(call, None)
        return status

    def retry_after_seconds(self, provider_id: str) -> float:
        """When the next permit of a provider may come free, as its last claim said; at least one second."""
        return max(1.0, self._waits.get(provider_id) or 1.0)

    def _capacity(self) -> int:
        return self._concurrency - len(self._calls)

    async def _submit_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._new:
                group, self._new = self._new[:MAX_GROUP], self._new[MAX_GROUP:]
                await self._submit_group(group)

    async def _submit_group(self, group: list[LiveCall]) -> None:
        claimed_at = time.monotonic()
        try:
            async with self._database.connection() as connection:
                claims = await repository.submit_and_claim(
                    connection,
                    [call.row for call in group],
                    owner_id=self.owner_id,
                    capacity=max(0, self._capacity()),
                    lease_seconds=self._lease_seconds,
                )
        except asyncpg.IntegrityConstraintViolationError as error:
            if len(group) > 1:
                for call in group:
                    await self._submit_group([call])
                return
            _log.warning("submission_refused", error=str(error))
            self._refuse(group, NotFound("LlmModel", group[0].row.model_ref, path=("model",)))
        except _DATABASE_TROUBLE as error:
            _log.warning("submissions_failed", calls=len(group), error=str(error))
            self._refuse(group, DatabaseUnavailable("the database does not answer"))
        else:
            for provider_id, claim in claims.items():
                self._take(claim, provider_id, claimed_at)
                self._claims.learn(provider_id, claim)
            for call in group:
                if call.is_cancelled and call.running is None and not call.ended.done():
                    # Its client left while it was being written.
                    await self.cancel(call)

    def _refuse(self, group: Sequence[LiveCall], error: Exception) -> None:
        for call in group:
            if not call.ended.done():
                call.ended.set_exception(error)
            self._end(call, None)

    def _take(self, claim: Claim, provider_id: str, claimed_at: float) -> None:
        self._waits[provider_id] = claim.wait_seconds
        for request in claim.requests:
            call = self._live.get(request.request_id)
            if call is not None:
                self._run(call, request, claim, claimed_at)
            # Else its client has gone meanwhile; the lease runs out, and it ends.

    def _run(self, call: LiveCall, request: ClaimedRequest, claim: Claim, claimed_at: float) -> None:
        started = claimed_at + claim.waited_seconds
        attempt = Attempt(
            request,
            request=call.request,
            parameters=call.parameters,
            send_by=started + claim.send_within_seconds,
            started=started,
        )
        if not call.admitted.done():
            call.admitted.set_result(Admitted(max(0.0, started - call.since), claim.permits_left))
        call.running = self._calls.start(
            attempt,
            claim,
            claimed_at=claimed_at,
            sink=call.chunks.put if call.chunks is not None else None,
            may_repeat=call.may_repeat,
            when_ended=lambda result, status: self._attempt_ended(call, request.provider_id, result, status),
        )
        if call.is_cancelled:
            call.running.stop(Interruption.CANCELLED)

    def _attempt_ended(
        self, call: LiveCall, provider_id: str, result: AttemptResult | None, status: ModelRequestStatus | None
    ) -> None:
        call.running = None
        self._claims.wake(provider_id)
        if status is ModelRequestStatus.PENDING:
            # It waits for its next attempt; a notification tells at which provider.
            return
        self._end(call, result)

    def _end(self, call: LiveCall, result: AttemptResult | None) -> None:
        self._live.pop(call.row.id, None)
        if not call.ended.done():
            call.ended.set_result(result)
        if not call.admitted.done():
            call.admitted.cancel()
        if call.chunks is not None:
            call.chunks.close()

    async def _keep_owner(self) -> None:
        async with self._database.connection() as connection:
            await repository.keep_owner(connection, self.owner_id, seconds=self._lease_seconds)

    async def _live_on(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 4)
            try:
                await self._keep_owner()
            except _DATABASE_TROUBLE as error:
                _log.warning("owner_not_renewed", error=str(error))

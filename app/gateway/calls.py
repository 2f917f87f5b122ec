"""The calls whose clients wait at this process: the same rows, claims, steps and ledger as queued ones.

Submissions that arrive while one group is being written gather for the next, so that under load the database is asked
less often per call. What cannot start at once waits in the same queue as everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import structlog

from app.catalog.snapshots import SnapshotHolder
from app.db.listen import CANCEL, REQUESTS, Listener
from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.errors import (
    CallCancelled,
    DatabaseUnavailable,
    LeaseLost,
    NotFound,
    ProviderUnavailable,
    RateLimited,
    TollgateError,
)
from app.execution.attempt import Attempt
from app.execution.calls import Calls
from app.execution.claims import ClaimLoop
from app.execution.clock import SteadyClock
from app.execution.executor import Interruption
from app.execution.leases import LeaseKeeper
from app.gateway.forecasts import Forecasts
from app.gateway.live import Admitted, LiveCall
from app.gateway.stream import ChunkStream
from app.limits.records import Claim, ClaimedRequest
from app.providers.operations import OperationRequest
from app.requests import repository
from app.requests.records import AttemptResult, ModelRequestStatus, NewRequest

MAX_GROUP: Final = 200
MAX_WAITING_BYTES: Final = 512 * 1024 * 1024
"""Of the requests of all calls that wait or run."""

_REFUSAL: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""Of the trouble, what comes back with the same rows."""

_log = structlog.get_logger(__name__)


class GatewayCalls:
    """One per process. `listener` must not be started yet: this subscribes to it."""

    def __init__(
        self,
        *,
        owner_id: str,
        database: Database,
        clock: SteadyClock,
        listener: Listener,
        snapshots: SnapshotHolder,
        calls: Calls,
        leases: LeaseKeeper,
        concurrency: int,
        lease_seconds: float,
        max_waiting: int,
    ) -> None:
        self.owner_id = owner_id
        self._database = database
        self._clock = clock
        self._calls = calls
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._max_waiting = max_waiting
        self._bytes = 0
        self._is_stopping = False
        self._live: dict[str, LiveCall] = {}
        self._new: list[LiveCall] = []
        self._wake = asyncio.Event()
        self._forecasts = Forecasts(database)
        self._queued: set[str] = set()
        """Calls whose rows wait for a permit."""
        self._doubtful: set[str] = set()
        """Calls that wait here, whose rows were changed by somebody else."""
        self._doubt = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._claims = ClaimLoop(
            worker_id=owner_id,
            owner_id=owner_id,
            database=database,
            clock=clock,
            listener=listener,
            snapshots=snapshots,
            lease_seconds=lease_seconds,
            # Where nobody waits here, there is nothing to claim. What is being written is claimed with that.
            capacity=lambda: self._capacity() if self._queued else 0,
            take=self._take,
        )
        listener.subscribe(CANCEL, leases.request_cancel)
        listener.subscribe(REQUESTS, self._suspect)
        listener.on_connect(self._suspect_all)

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
            asyncio.create_task(self._watch_ends(), name="gateway ends"),
        ]

    async def drain(self, *, seconds: float, hurry: asyncio.Event | None = None) -> None:
        """Refuses what waits and what comes from now on; running calls may end for `seconds`, or until `hurry`."""
        if self._is_stopping:
            return
        self._is_stopping = True
        new, self._new = self._new, []
        self._refuse(new, _stopping())
        await self._claims.stop(self._tasks[1])
        for call in list(self._live.values()):
            await call.written.wait()
        await self._turn_away([call for call in self._live.values() if call.running is None])
        await self._calls.drain(seconds=seconds, write_seconds=self._lease_seconds, hurry=hurry or asyncio.Event())
        # What was interrupted, and would have been tried again.
        await self._turn_away(list(self._live.values()))

    async def stop(self, *, drain_seconds: float) -> None:
        await self.drain(seconds=drain_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._calls.stop_services()
        async with self._database.connection() as connection:
            await repository.remove_owner(connection, self.owner_id)

    def submit(self, row: NewRequest, request: OperationRequest, *, stream: bool) -> LiveCall:
        """Starts waiting for a permit. The caller awaits `admitted` and `ended`, or gives up with `cancel`.

        Raises ProviderUnavailable where this process takes no more.
        """
        if self._is_stopping:
            raise _stopping()
        size = len(row.payload)
        waiting = len(self._live) - len(self._calls)
        if waiting >= self._max_waiting or (self._live and self._bytes + size > MAX_WAITING_BYTES):
            raise ProviderUnavailable(
                f"the gateway is full: {waiting} calls wait at it", http_status=503, retry_after_seconds=1
            )
        self._bytes += size
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
            return ModelRequestStatus.CANCELLED
        if call.running is not None:
            call.running.stop(Interruption.CANCELLED)
            return ModelRequestStatus.PROCESSING
        try:
            async with self._database.transaction() as connection:
                status = await repository.cancel_request(connection, call.row.workspace_id, call.row.id)
        except DATABASE_TROUBLE as error:
            # It is stopped as soon as it is claimed.
            _log.warning("cancel_failed", request_id=call.row.id, error=str(error))
            return None
        if status is ModelRequestStatus.CANCELLED:
            self._end(call, None)
        return status

    async def retry_after_seconds(self, call: LiveCall) -> float:
        """When such a call that came now would get its permit; at least one second."""
        return await self._forecasts.seconds(call.row.provider_id, tokens=call.row.reserved_tokens)

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
        # Each provider's claim may take as much.
        capacity = max(0, self._capacity()) // len({call.row.provider_id for call in group})
        claims: dict[str, Claim] | None = None
        try:
            async with self._database.connection() as connection:
                claims = await repository.submit_and_claim(
                    connection,
                    [call.row for call in group],
                    owner_id=self.owner_id,
                    capacity=capacity,
                    lease_seconds=self._lease_seconds,
                    expectation=self._clock.expectation(),
                )
                # Started before the connection is given back, which takes turns of the event loop.
                self._submitted(group, claims, claimed_at, capacity)
        except Exception as error:  # noqa: BLE001 - no call, whatever is in it, may end the submission of all others
            if claims is None:
                await self._not_submitted(group, error)
                return
            _log.exception("submission_crashed", calls=len(group))
        for call in group:
            if call.is_cancelled and call.running is None and not call.ended.done():
                # Its client left while it was being written.
                await self.cancel(call)

    def _submitted(
        self, group: Sequence[LiveCall], claims: Mapping[str, Claim], claimed_at: float, capacity: int
    ) -> None:
        for call in group:
            call.written.set()
            if call.row.id in self._live:
                self._queued.add(call.row.id)
        for provider_id, claim in claims.items():
            self._take(claim, provider_id, claimed_at)
            self._claims.learn(provider_id, claim)
            if len(claim.requests) >= capacity:
                # There may be permits for more than had a place here.
                self._claims.wake(provider_id)
        if self._queued:
            self._claims.look_again()

    async def _not_submitted(self, group: list[LiveCall], error: Exception) -> None:
        if isinstance(error, DATABASE_TROUBLE) and not isinstance(error, _REFUSAL):
            _log.warning("submissions_failed", calls=len(group), error=str(error))
            self._refuse(group, DatabaseUnavailable("the database does not answer"))
        elif len(group) > 1:
            for call in group:
                await self._submit_group([call])
        else:
            _log.warning("submission_refused", request_id=group[0].row.id, error=f"{type(error).__name__}: {error}")
            is_gone = isinstance(error, asyncpg.ForeignKeyViolationError)
            gone = NotFound("LlmModel", group[0].row.model_ref, path=("model",))
            self._refuse(group, gone if is_gone else TollgateError("the request cannot be stored"))

    def _refuse(self, calls: Sequence[LiveCall], error: TollgateError) -> None:
        for call in calls:
            self._end(call, error)

    async def _turn_away(self, calls: Sequence[LiveCall]) -> None:
        """The process stops: who waits may try again elsewhere."""
        waiting = [call for call in calls if not call.ended.done()]
        if not waiting:
            return
        self._refuse(waiting, _stopping())
        try:
            async with self._database.transaction() as connection:
                for call in waiting:
                    await repository.cancel_request(connection, call.row.workspace_id, call.row.id)
        except DATABASE_TROUBLE as error:
            # They end when another process sees that this one is gone.
            _log.warning("waiting_not_cancelled", calls=len(waiting), error=str(error))

    def _take(self, claim: Claim, provider_id: str, claimed_at: float) -> None:
        for request in claim.requests:
            call = self._live.get(request.request_id)
            if call is not None:
                self._run(call, request, claim, claimed_at)
            # Else its client has gone meanwhile; the lease runs out, and it ends.

    def _run(self, call: LiveCall, request: ClaimedRequest, claim: Claim, claimed_at: float) -> None:
        self._queued.discard(call.row.id)
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
            self._queued.add(call.row.id)
            self._claims.look_again()
            return
        # Under a lost lease the row says something else than the result.
        self._end(call, result if status is not None else None)

    def _end(self, call: LiveCall, result: AttemptResult | TollgateError | None) -> None:
        self._queued.discard(call.row.id)
        if self._live.pop(call.row.id, None) is not None:
            self._bytes -= len(call.row.payload)
        if not call.ended.done():
            if isinstance(result, TollgateError):
                call.ended.set_exception(result)
                # Its client may have left: then nobody asks for it, which is no fault.
                call.ended.exception()
            else:
                call.ended.set_result(result)
        if not call.admitted.done():
            call.admitted.cancel()
        call.written.set()

    def _suspect(self, payload: str) -> None:
        for request_id in payload.split():
            call = self._live.get(request_id)
            if call is not None and call.running is None and call.written.is_set():
                self._doubtful.add(request_id)
                self._doubt.set()

    async def _suspect_all(self) -> None:
        """Notifications may have been missed."""
        self._suspect(" ".join(self._live))

    async def _watch_ends(self) -> None:
        """Ends calls whose rows ended while they waited: cancelled by another client, or past their deadline."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            ids, self._doubtful = list(self._doubtful), set()
            try:
                async with self._database.connection() as connection:
                    ends = await repository.ends_of(connection, ids)
            except DATABASE_TROUBLE as error:
                _log.warning("ends_not_read", calls=len(ids), error=str(error))
                continue
            for request_id, (status, code) in ends.items():
                call = self._live.get(request_id)
                if call is not None and call.running is None:
                    self._end(call, await self._ended_elsewhere(call, status, code))

    async def _ended_elsewhere(self, call: LiveCall, status: ModelRequestStatus, code: str | None) -> TollgateError:
        if status is ModelRequestStatus.CANCELLED:
            return CallCancelled("the request was cancelled")
        if code == "DEADLINE_EXCEEDED":
            return RateLimited(
                "no permit came free before the call's deadline",
                http_status=429,
                retry_after_seconds=await self.retry_after_seconds(call),
            )
        return LeaseLost("the call was lost: its outcome is not known")

    async def _keep_owner(self) -> None:
        async with self._database.connection() as connection:
            await repository.keep_owner(
                connection, self.owner_id, seconds=self._lease_seconds, expectation=self._clock.expectation()
            )

    async def _live_on(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 4)
            try:
                await self._keep_owner()
            except DATABASE_TROUBLE as error:
                _log.warning("owner_not_renewed", error=str(error))


def _stopping() -> ProviderUnavailable:
    return ProviderUnavailable("the server is stopping", http_status=503, retry_after_seconds=1)

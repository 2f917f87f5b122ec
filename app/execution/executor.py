"""Runs the steps of one attempt and says how it ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import structlog
from msgspec import structs

from app.catalog.snapshots import SnapshotHolder
from app.db.trouble import DATABASE_TROUBLE
from app.errors import CallCancelled, CallTimeout, ConnectionFailed, InvalidResponse, PermitExpired, ProviderError
from app.execution import steps
from app.execution.attempt import Attempt, ChunkSink, Progress, Timeouts
from app.execution.results import completed, failed
from app.providers.adapter import Adapter
from app.providers.transport import Transport
from app.requests.lifecycle import decide
from app.requests.records import AttemptResult

_log = structlog.get_logger(__name__)


class Interruption(StrEnum):
    """Why a call was stopped from outside. LEASE_LOST has no result: another worker may hold the request."""

    CANCELLED = "CANCELLED"
    DRAINED = "DRAINED"
    LEASE_LOST = "LEASE_LOST"


_INTERRUPTED: Mapping[Interruption, ProviderError] = {
    Interruption.CANCELLED: CallCancelled("cancelled while the call was running"),
    Interruption.DRAINED: ConnectionFailed("the process stopped before the call ended"),
}


class Executor:
    def __init__(
        self,
        snapshots: SnapshotHolder,
        transport: Transport,
        *,
        adapters: Mapping[str, Adapter],
        credentials: steps.Credentials,
        endpoints: steps.Endpoints,
        timeouts: Timeouts,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._snapshots = snapshots
        self._transport = transport
        self._adapters = adapters
        self._credentials = credentials
        self._endpoints = endpoints
        self._timeouts = timeouts
        self._now = now
        self._jitter = jitter

    async def execute(
        self,
        attempt: Attempt,
        *,
        catalog_revision: int,
        interruption: Callable[[], Interruption | None],
        sink: ChunkSink | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> AttemptResult | None:
        """The attempt's result; None where its lease was lost.

        `catalog_revision` was in force at the start: the steps see no older catalog. With `sink` the answer is
        streamed; `may_repeat` says after a failure whether another attempt can still take its place. A cancelled task
        ends as `interruption()` says; where that says nothing, the cancellation goes on.
        """
        progress = Progress()
        try:
            await self._catch_up(catalog_revision)
            attempt = self._resolved(attempt)
            attempt = await self._called(attempt, progress, sink)
            attempt = steps.price(steps.read_usage(attempt, progress.collector.usage), self._snapshots.current)
            return completed(attempt, progress)
        except ProviderError as error:
            return self._failed(attempt, error, progress, may_repeat)
        except asyncio.CancelledError:
            why = interruption()
            if why is None:
                raise
            if why is Interruption.LEASE_LOST:
                return None
            return self._failed(attempt, _INTERRUPTED[why], progress, may_repeat)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must end here
            # A defect of our own must not hold a slot for ever: the request ends, with the error in the log.
            _log.exception("attempt_crashed", request_id=attempt.claim.request_id)
            return self._failed(
                attempt, InvalidResponse(f"internal error: {type(error).__name__}"), progress, may_repeat
            )

    async def _catch_up(self, catalog_revision: int) -> None:
        if self._snapshots.current.revision >= catalog_revision:
            return
        try:
            await self._snapshots.refresh(at_least=catalog_revision)
        except DATABASE_TROUBLE:
            raise PermitExpired("the catalog could not be read before the call") from None

    def _resolved(self, attempt: Attempt) -> Attempt:
        return steps.pick_credential(
            steps.resolve_model(attempt, self._snapshots.current, self._adapters, self._endpoints, self._timeouts),
            self._credentials,
        )

    async def _called(self, attempt: Attempt, progress: Progress, sink: ChunkSink | None) -> Attempt:
        attempt = steps.render(attempt, stream=sink is not None)
        seconds = self._seconds_left(attempt)
        try:
            async with asyncio.timeout(seconds):
                return await steps.call(attempt, self._transport, progress=progress, sink=sink)
        except TimeoutError:
            raise CallTimeout(f"the call did not end within {seconds:.6g} s") from None

    def _seconds_left(self, attempt: Attempt) -> float:
        assert attempt.timeouts is not None
        total, deadline = attempt.timeouts.total, attempt.claim.deadline
        if deadline is None:
            return total
        left = (deadline - self._now()).total_seconds()
        if left <= 0:
            raise CallTimeout("the deadline passed before the call was sent")
        return min(total, left)

    def _failed(
        self, attempt: Attempt, error: ProviderError, progress: Progress, may_repeat: Callable[[], bool]
    ) -> AttemptResult:
        claim = attempt.claim
        decision = decide(
            error,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            has_fallback=claim.has_fallback,
            may_repeat=may_repeat(),
            now=self._now(),
            deadline=claim.deadline,
            jitter=self._jitter(),
        )
        attempt = self._with_partial_usage(attempt, error, progress)
        result = failed(attempt, error, decision, progress)
        _log.info(
            "attempt_failed",
            request_id=claim.request_id,
            model=claim.model_ref,
            attempt=claim.attempt,
            code=error.code,
            http_status=error.http_status,
            outcome=decision.outcome,
        )
        return result

    def _with_partial_usage(self, attempt: Attempt, error: ProviderError, progress: Progress) -> Attempt:
        """A stream that broke off was billed for what had come of it: that is estimated, and charged as estimated."""
        if not progress.is_sent or attempt.model is None:
            return attempt
        # Work that failed by itself is told with status 200, and not billed.
        is_given_up = progress.is_accepted and error.http_status != 200
        if progress.first_chunk_seconds is None and not is_given_up and not isinstance(error, CallCancelled):
            # Whether it came to anything is not known. Of a call that was stopped while it ran, the input is billed.
            return attempt
        try:
            attempt = structs.replace(attempt, response=progress.collector.response())
            attempt = steps.read_usage(attempt, progress.collector.usage)
        except ProviderError:
            return attempt
        return steps.price(attempt, self._snapshots.current)

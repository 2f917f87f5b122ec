"""Runs the steps of one attempt and says how it ended."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import asyncpg
import structlog

from app.catalog.snapshots import SnapshotHolder
from app.errors import CallCancelled, CallTimeout, ConnectionFailed, InvalidResponse, PermitExpired, ProviderError
from app.execution import steps
from app.execution.attempt import Attempt
from app.providers.protocol import Adapter
from app.providers.transport import Transport
from app.requests.lifecycle import Decision, decide, is_retryable
from app.requests.records import AttemptError, AttemptResult, Outcome

_log = structlog.get_logger(__name__)


class Interruption(StrEnum):
    """Why a call was stopped from outside. LEASE_LOST has no result: another worker may hold the request."""

    CANCELLED = "CANCELLED"
    DRAINED = "DRAINED"
    LEASE_LOST = "LEASE_LOST"


class Executor:
    def __init__(
        self,
        snapshots: SnapshotHolder,
        transport: Transport,
        *,
        adapters: Mapping[str, Adapter],
        credentials: steps.Credentials,
        endpoints: steps.Endpoints,
        call_timeout_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._snapshots = snapshots
        self._transport = transport
        self._adapters = adapters
        self._credentials = credentials
        self._endpoints = endpoints
        self._call_timeout_seconds = call_timeout_seconds
        self._now = now
        self._jitter = jitter

    async def execute(
        self, attempt: Attempt, *, catalog_revision: int, interruption: Callable[[], Interruption | None]
    ) -> AttemptResult | None:
        """The attempt's result; None where its lease was lost.

        `catalog_revision` was in force at the start: the steps see no older catalog. A cancelled task ends as
        `interruption()` says; where that says nothing, the cancellation goes on.
        """
        started = time.monotonic()
        try:
            await self._catch_up(catalog_revision)
            attempt = await self._run(attempt)
            return _completed(attempt)
        except ProviderError as error:
            return self._failed(attempt, error)
        except asyncio.CancelledError:
            return self._interrupted(attempt, interruption())
        except Exception as error:  # noqa: BLE001 - whatever it is, it must end here
            # A defect of our own must not hold a slot for ever: the request ends, with the error in the log.
            _log.exception("attempt_crashed", request_id=attempt.claim.request_id)
            return self._failed(attempt, InvalidResponse(f"internal error: {type(error).__name__}"))
        finally:
            _log.debug(
                "attempt_ended", request_id=attempt.claim.request_id, seconds=round(time.monotonic() - started, 6)
            )

    async def _catch_up(self, catalog_revision: int) -> None:
        try:
            await self._snapshots.refresh(at_least=catalog_revision)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            raise PermitExpired("the catalog could not be read before the call") from None

    async def _run(self, attempt: Attempt) -> Attempt:
        snapshot = self._snapshots.current
        attempt = steps.resolve_model(attempt, snapshot, self._adapters, self._endpoints)
        attempt = steps.pick_credential(attempt, self._credentials)
        attempt = steps.render(attempt)
        timeout_seconds = self._timeout_seconds(attempt)
        try:
            async with asyncio.timeout(timeout_seconds):
                attempt = await steps.call(attempt, self._transport, timeout_seconds=timeout_seconds)
        except TimeoutError:
            raise CallTimeout(f"the call did not end within {timeout_seconds:g} s") from None
        attempt = steps.read_usage(attempt)
        return steps.price(attempt, snapshot)

    def _timeout_seconds(self, attempt: Attempt) -> float:
        deadline = attempt.claim.deadline
        if deadline is None:
            return self._call_timeout_seconds
        left = (deadline - self._now()).total_seconds()
        if left <= 0:
            raise CallTimeout("the deadline passed before the call was sent")
        return min(self._call_timeout_seconds, left)

    def _failed(self, attempt: Attempt, error: ProviderError) -> AttemptResult:
        claim = attempt.claim
        decision = decide(
            error,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            now=self._now(),
            deadline=claim.deadline,
            jitter=self._jitter(),
        )
        message = _masked(error.message, attempt)
        if decision.reason is not None:
            message = f"{message} ({decision.reason})"
        _log.info(
            "attempt_failed",
            request_id=claim.request_id,
            model=claim.model_ref,
            attempt=claim.attempt,
            code=error.code,
            http_status=error.http_status,
            outcome=decision.outcome,
        )
        return AttemptResult(
            request_id=claim.request_id,
            lease_id=claim.lease_id,
            outcome=decision.outcome,
            retry_seconds=decision.retry_seconds,
            settled_tokens=_settled_after(error),
            error=AttemptError(error.code, message, is_retryable(error), error.http_status),
            http_status=error.http_status,
            provider_request_id=error.provider_request_id,
        )

    def _interrupted(self, attempt: Attempt, why: Interruption | None) -> AttemptResult | None:
        claim = attempt.claim
        if why is Interruption.CANCELLED:
            return self._failed(attempt, CallCancelled("cancelled while the call was running"))
        if why is Interruption.DRAINED:
            error = ConnectionFailed("the worker stopped before the call ended")
            decision = Decision(Outcome.RETRY) if claim.attempt < claim.max_attempts else Decision(Outcome.FAILED)
            return AttemptResult(
                request_id=claim.request_id,
                lease_id=claim.lease_id,
                outcome=decision.outcome,
                error=AttemptError(error.code, error.message, retryable=True),
            )
        if why is Interruption.LEASE_LOST:
            return None
        raise asyncio.CancelledError


def _completed(attempt: Attempt) -> AttemptResult:
    assert attempt.response is not None
    assert attempt.usage is not None
    return AttemptResult(
        request_id=attempt.claim.request_id,
        lease_id=attempt.claim.lease_id,
        outcome=Outcome.COMPLETED,
        # An estimate is not good enough to give permits back.
        settled_tokens=None if attempt.usage.estimated else attempt.usage.total_tokens,
        output=attempt.response.output,
        output_text=attempt.response.output_text,
        usage=attempt.usage,
        cost=attempt.receipt,
        response_model=attempt.response.response_model,
        provider_request_id=attempt.response.provider_request_id,
        finish_reason=attempt.response.finish_reason,
        http_status=200,
    )


def _settled_after(error: ProviderError) -> int | None:
    """Zero where the provider surely used no tokens: nothing was sent, or it refused with a 4xx. Else not known."""
    if isinstance(error, PermitExpired):
        return 0
    refused = error.http_status is not None and 400 <= error.http_status < 500 and error.http_status != 408
    return 0 if refused or (error.http_status is None and error.code == "AUTHENTICATION_FAILED") else None


def _masked(message: str, attempt: Attempt) -> str:
    """A provider may echo the key it was called with."""
    secret = attempt.credential.get_secret_value() if attempt.credential is not None else ""
    if len(secret) < 8:
        return message
    message = message.replace(secret, "***")
    # A long message was cut, perhaps in the middle of the key.
    cut = next((size for size in range(len(secret) - 1, 3, -1) if message.endswith(secret[:size])), 0)
    return message[:-cut] + "***" if cut else message

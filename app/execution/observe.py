"""From an ended attempt to what is observed of it."""

from __future__ import annotations

from datetime import UTC, datetime

from app.execution.attempt import Attempt
from app.observability.observation import AttemptObservation
from app.providers.operations import OPERATION_OF
from app.requests.records import AttemptResult


def observation_of(
    attempt: Attempt, result: AttemptResult | None, *, is_streamed: bool, called_at: float, ended_at: float
) -> AttemptObservation:
    """`called_at` and `ended_at`: time.monotonic() when the call had ended, and when its result was written."""
    claim = attempt.claim
    provider, _, model = claim.model_ref.partition(":")
    cost = result.cost.total if result is not None and result.cost is not None else None
    return AttemptObservation(
        request_id=claim.request_id,
        attempt=claim.attempt,
        operation=OPERATION_OF[type(attempt.request)],
        provider=provider,
        request_model=model,
        response_model=result.response_model if result is not None else None,
        outcome=result.outcome if result is not None else "LEASE_LOST",
        error_code=_error_code(result),
        http_status=result.http_status if result is not None else None,
        finish_reason=result.finish_reason if result is not None else None,
        created_at=claim.created_at,
        started_at=claim.started_at,
        ended_at=datetime.now(UTC),
        call_seconds=max(0.0, called_at - attempt.started),
        settle_seconds=max(0.0, ended_at - called_at),
        first_chunk_seconds=result.first_chunk_seconds if result is not None else None,
        usage=result.usage if result is not None else None,
        cost=None if cost is None else float(cost),
        is_streamed=is_streamed,
        request=attempt.request,
        output=result.output if result is not None else None,
    )


def _error_code(result: AttemptResult | None) -> str | None:
    if result is None:
        return "LEASE_LOST"
    return result.error.code if result.error is not None else None

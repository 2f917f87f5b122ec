"""What a fallback and a delivered part of the answer change in what becomes of a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import errors
from app.errors import ProviderError
from app.requests.lifecycle import Decision, decide
from app.requests.records import Outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BUSY = errors.ProviderUnavailable("no")


def after(error: ProviderError, **changes: Any) -> Decision:
    fields: dict[str, Any] = {"attempt": 1, "max_attempts": 3, "now": NOW, "deadline": None, "jitter": 0.0}
    return decide(error, **fields | {"has_fallback": True} | changes)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.AuthenticationFailed("no"), Outcome.FALLBACK),
        (errors.PermissionDenied("no"), Outcome.FALLBACK),
        (errors.ModelNotFound("no"), Outcome.FALLBACK),
        (errors.LeaseLost("no"), Outcome.FALLBACK),
        (errors.InvalidRequest("no"), Outcome.FAILED),
        (errors.PayloadTooLarge("no"), Outcome.FAILED),
        (errors.CallCancelled("no"), Outcome.CANCELLED),
        (errors.PermitExpired("no"), Outcome.RELEASED),
        (BUSY, Outcome.RETRY),
    ],
)
def test_another_model_takes_over_where_it_may_do_better(error: ProviderError, outcome: Outcome) -> None:
    assert after(error).outcome is outcome


def test_another_model_takes_over_at_once() -> None:
    assert after(BUSY, attempt=3) == Decision(Outcome.FALLBACK, reason="all 3 attempts failed")


def test_another_model_takes_over_where_a_retry_would_come_too_late() -> None:
    assert after(BUSY, deadline=NOW + timedelta(seconds=1)).outcome is Outcome.FALLBACK
    asked = errors.RateLimited("no", retry_after_seconds=3601)
    assert after(asked).outcome is Outcome.FALLBACK


def test_nothing_takes_over_once_a_part_of_the_answer_was_delivered() -> None:
    assert after(BUSY, may_repeat=False).outcome is Outcome.FAILED
    assert after(errors.PermitExpired("no"), may_repeat=False).outcome is Outcome.RELEASED


def test_the_waits_of_the_next_model_begin_anew() -> None:
    waits = [after(BUSY, attempt=attempt, max_attempts=6).retry_seconds for attempt in (4, 5)]
    assert waits == [after(BUSY, attempt=attempt).retry_seconds for attempt in (1, 2)] == [1.0, 2.0]

"""What becomes of a request after a failed attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import errors
from app.errors import ProviderError
from app.requests.lifecycle import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    Decision,
    backoff_seconds,
    decide,
    is_retryable,
)
from app.requests.records import Outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProviderError)]
RETRIED = {
    "ProviderError",
    "ProviderConflict",
    "RateLimited",
    "ProviderUnavailable",
    "CallTimeout",
    "ConnectionFailed",
    "InvalidResponse",
    "PermitExpired",
}

jitters = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10_000)


def after(
    error: ProviderError,
    *,
    attempt: int = 1,
    max_attempts: int = 3,
    deadline: datetime | None = None,
    jitter: float = 0.0,
) -> Decision:
    return decide(error, attempt=attempt, max_attempts=max_attempts, now=NOW, deadline=deadline, jitter=jitter)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_retried_or_not_by_its_kind(kind: type[ProviderError]) -> None:
    assert is_retryable(kind("no")) is (kind.__name__ in RETRIED)
    expected = {"CallCancelled": Outcome.CANCELLED, "PermitExpired": Outcome.RELEASED}.get(
        kind.__name__, Outcome.RETRY if kind.__name__ in RETRIED else Outcome.FAILED
    )
    assert after(kind("no")).outcome is expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_attempt_is_the_last(kind: type[ProviderError]) -> None:
    outcome = after(kind("no"), attempt=3).outcome
    assert outcome is not Outcome.RETRY
    if kind.__name__ in RETRIED and kind is not errors.PermitExpired:
        assert after(kind("no"), attempt=3).reason == "all 3 attempts failed"


def test_a_call_that_was_not_sent_is_released_however_often() -> None:
    assert after(errors.PermitExpired("no"), attempt=99).outcome is Outcome.RELEASED


@given(attempts, jitters)
def test_the_wait_doubles_from_a_second_to_a_minute(attempt: int, jitter: float) -> None:
    whole = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(attempt - 1, 40))
    assert whole / 2 <= backoff_seconds(attempt, jitter) <= whole
    assert backoff_seconds(attempt, 0) == whole


@given(st.floats(0, MAX_RETRY_AFTER_SECONDS), st.integers(1, 2), jitters)
def test_retry_after_is_a_floor_of_the_wait(seconds: float, attempt: int, jitter: float) -> None:
    decision = after(errors.RateLimited("no", retry_after_seconds=seconds), attempt=attempt, jitter=jitter)
    assert decision.outcome is Outcome.RETRY
    assert seconds <= decision.retry_seconds <= seconds + MAX_BACKOFF_SECONDS / 10


def test_a_provider_that_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    error = errors.RateLimited("no", retry_after_seconds=MAX_RETRY_AFTER_SECONDS + 0.001)
    decision = after(error)
    assert decision.outcome is Outcome.FAILED
    assert decision.reason is not None
    assert "3600 s" in decision.reason


def test_no_retry_is_planned_at_or_after_the_deadline() -> None:
    error = errors.ProviderUnavailable("no")
    assert after(error, deadline=NOW + timedelta(seconds=1)).outcome is Outcome.FAILED
    assert after(error, deadline=NOW + timedelta(seconds=1, microseconds=1)).outcome is Outcome.RETRY
    assert after(error, deadline=NOW - timedelta(seconds=1)).reason == "the deadline comes before the next attempt"


@given(
    st.sampled_from(KINDS),
    attempts,
    attempts,
    st.none() | st.floats(0, 1e9),
    st.none() | st.integers(-100, 10_000),
    jitters,
)
def test_every_decision_is_one_that_can_be_carried_out(
    kind: type[ProviderError],
    attempt: int,
    max_attempts: int,
    retry_after: float | None,
    deadline_seconds: int | None,
    jitter: float,
) -> None:
    deadline = None if deadline_seconds is None else NOW + timedelta(seconds=deadline_seconds)
    error = kind("no", retry_after_seconds=retry_after)
    decision = after(error, attempt=attempt, max_attempts=max_attempts, deadline=deadline, jitter=jitter)
    assert decision.outcome is not Outcome.COMPLETED
    if decision.outcome is Outcome.RETRY:
        assert attempt < max_attempts
        assert decision.retry_seconds > 0
        assert deadline is None or NOW + timedelta(seconds=decision.retry_seconds) < deadline
    else:
        assert decision.retry_seconds == 0

"""What becomes of a request after a failed attempt: a pure decision.

    PENDING --claim--> PROCESSING --finish--> COMPLETED | FAILED | CANCELLED
       ^                   |
       +--- retry, release, or lease expired (rescue)

A wait for a permit is no attempt: only calls that may have been sent count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.errors import (
    AuthenticationFailed,
    CallCancelled,
    CallTimeout,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    LeaseLost,
    ModelNotFound,
    PermissionDenied,
    PermitExpired,
    ProviderError,
    ProviderUnavailable,
)
from app.requests.records import Outcome

FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_RETRY_AFTER_SECONDS: Final = 3600.0

ATTEMPTS_PER_FALLBACK: Final = 3
"""As the first model has; divert_requests in the database gives as many."""

_CALLERS: Final = (InvalidRequest,)
"""What another model would refuse too."""
_FINAL: Final = (InvalidRequest, AuthenticationFailed, PermissionDenied, ModelNotFound, CallCancelled, LeaseLost)


@dataclass(frozen=True, slots=True)
class Decision:
    outcome: Outcome
    retry_seconds: float = 0.0
    reason: str | None = None
    """Why it is not tried again, where that is not the error's own doing."""


def is_retryable(error: ProviderError) -> bool:
    """Whether the same call may succeed later."""
    return not isinstance(error, _FINAL)


def is_provider_fault(error: ProviderError) -> bool:
    """Whether it counts towards opening the provider's circuit: the provider failed, not the caller or a limit."""
    return isinstance(error, (ProviderUnavailable, CallTimeout, ConnectionFailed, InvalidResponse))


def decide(
    error: ProviderError,
    *,
    attempt: int,
    max_attempts: int,
    now: datetime,
    deadline: datetime | None,
    jitter: float,
    has_fallback: bool = False,
    may_repeat: bool = True,
) -> Decision:
    """Decides after attempt number `attempt` (from 1). `jitter` is random in [0, 1).

    The provider's Retry-After is a floor of the wait; without one the wait doubles from one second up to a minute,
    less up to half of it. Where this model is exhausted and another is left (`has_fallback`), that one goes on at
    once. `may_repeat` False: a part of the answer has gone to the caller, so that no other can take its place.
    """
    if isinstance(error, PermitExpired):
        return Decision(Outcome.RELEASED)
    if isinstance(error, CallCancelled):
        return Decision(Outcome.CANCELLED)
    if not may_repeat:
        return Decision(Outcome.FAILED, reason="a part of the answer was already delivered")
    exhausted = Outcome.FALLBACK if has_fallback and not isinstance(error, _CALLERS) else Outcome.FAILED
    if not is_retryable(error):
        return Decision(exhausted)
    if attempt >= max_attempts:
        return Decision(exhausted, reason=f"all {max_attempts} attempts failed")
    # The wait grows with the attempts at this model: those at an exhausted one before it do not count.
    wait = backoff_seconds(max(1, attempt - max(0, max_attempts - ATTEMPTS_PER_FALLBACK)), jitter)
    if error.retry_after_seconds is not None:
        if error.retry_after_seconds > MAX_RETRY_AFTER_SECONDS:
            return Decision(
                exhausted,
                reason=f"the provider asks to wait {error.retry_after_seconds:.0f} s, "
                f"more than {MAX_RETRY_AFTER_SECONDS:.0f} s",
            )
        wait = error.retry_after_seconds + wait * 0.1
    if deadline is not None and now + timedelta(seconds=wait) >= deadline:
        return Decision(exhausted, reason="the deadline comes before the next attempt")
    return Decision(Outcome.RETRY, retry_seconds=wait)


def backoff_seconds(attempt: int, jitter: float) -> float:
    """Between half of and the whole doubled wait."""
    whole = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(attempt - 1, 30))
    return float(whole * (1 - jitter / 2))

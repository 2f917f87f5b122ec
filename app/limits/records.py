"""A claim's answer: the requests that a provider's limits admitted, and when to ask again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, NewType

LeaseId = NewType("LeaseId", str)
"""Fences completion: a finish under a lease that is no longer held changes nothing."""


@dataclass(frozen=True, slots=True)
class ClaimedRequest:
    """One admitted request. `started_at` is the start that the limits counted, by the database's clock.

    `payload` and `parameters` are None where its owner claimed it, who has them. `has_fallback`: another model is
    left to go on with.
    """

    request_id: str
    lease_id: LeaseId
    provider_id: str
    workspace_id: str
    model_id: str | None
    model_ref: str
    payload: dict[str, Any] | None
    parameters: dict[str, Any] | None
    attempt: int
    max_attempts: int
    deadline: datetime | None
    started_at: datetime
    reserved_tokens: int
    is_streamed: bool = False
    has_fallback: bool = False
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call of claim_requests answered.

    `wait_seconds`: time after which a claim can be of use without any notification; None where only a notification
    can make it so. `send_within_seconds`: how long the admitted starts' permits hold, from the start. A start
    happened no earlier than `waited_seconds` after the claim was called. `catalog_revision`: the catalog's revision
    when the requests started. `permits_left`: how many more calls could have started.
    """

    requests: tuple[ClaimedRequest, ...]
    wait_seconds: float | None
    send_within_seconds: float
    waited_seconds: float
    catalog_revision: int
    permits_left: int = 0


class ClockReading(NamedTuple):
    """What the steady clock said, in which epoch, and how far it was behind the server's."""

    epoch: int
    behind_microseconds: int
    told_microseconds: int
    """Since 1970."""


class Expectation(NamedTuple):
    """What a machine expects the steady clock to say, as it knows it since that epoch. None: it knows nothing."""

    epoch: int | None
    clock: datetime | None


UNKNOWN = Expectation(None, None)


@dataclass(frozen=True, slots=True)
class RenewedLease:
    request_id: str
    lease_id: LeaseId
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Start:
    """One line of the start log. `tokens` are the settled ones, else the reserved; `ended_at` is None while it runs."""

    provider_id: str
    sequence: int
    request_id: str
    started_at: datetime
    ended_at: datetime | None
    tokens: int


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """How far a provider's limits are used at one moment. `tokens_in_window`: settled, or else reserved."""

    running: int
    waiting: int
    oldest_waiting_at: datetime | None
    starts_in_window: int
    tokens_in_window: int
    consecutive_failures: int
    circuit_open_until: datetime | None

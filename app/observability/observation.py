"""What is observed of one attempt when it has ended, and who takes it. No prompt and no answer is in it by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.prices.records import Usage
from app.providers.operations import Operation, OperationOutput, OperationRequest


@dataclass(frozen=True, slots=True)
class AttemptObservation:
    """Times are aware datetimes of this process, but for `created_at` and `started_at`, which are the database's.

    `call_seconds`: from the start to the end of the provider's answer; `settle_seconds`: writing the result;
    `first_chunk_seconds`: from the start, for a streamed answer. `outcome` is an Outcome, or LEASE_LOST.
    `cost` is for charts: the exact one is in the ledger.
    """

    request_id: str
    attempt: int
    operation: Operation
    provider: str
    request_model: str
    response_model: str | None
    outcome: str
    error_code: str | None
    http_status: int | None
    finish_reason: str | None
    created_at: datetime | None
    started_at: datetime
    ended_at: datetime
    call_seconds: float
    settle_seconds: float
    first_chunk_seconds: float | None
    usage: Usage | None
    cost: float | None
    is_streamed: bool
    request: OperationRequest
    output: OperationOutput | None

    @property
    def queue_seconds(self) -> float | None:
        """From submission, or for a later attempt also from the ones before, to the start."""
        return None if self.created_at is None else max(0.0, (self.started_at - self.created_at).total_seconds())


class Observer(Protocol):
    """Must be quick and must not raise."""

    def attempt_ended(self, observation: AttemptObservation) -> None: ...


class Observers:
    """Several as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def attempt_ended(self, observation: AttemptObservation) -> None:
        for observer in self._observers:
            observer.attempt_ended(observation)

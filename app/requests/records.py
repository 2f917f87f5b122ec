"""A request as it is submitted, and how an attempt at it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, NewType

from app.db.rows import (
    LedgerEntry,
    ModelOperation,
    ModelRequest,
    ModelRequestStatus,
    RequestAttempt,
    RequestAttemptStatus,
)
from app.errors import ProviderError
from app.prices.records import CostReceipt, Usage
from app.providers.operations import Chunk, OperationOutput, OperationRequest

__all__ = [
    "FINAL_STATUSES",
    "AttemptError",
    "AttemptResult",
    "ChunkGroup",
    "KeyedRequest",
    "LedgerEntry",
    "ModelOperation",
    "ModelRequest",
    "ModelRequestStatus",
    "NewRequest",
    "Outcome",
    "Progress",
    "RequestAttempt",
    "RequestAttemptStatus",
    "RequestFilter",
    "RequestId",
    "SubmitRequest",
]

RequestId = NewType("RequestId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """What a caller submits. `model` is a ref or an id; `messages` ({"role", "content"}) or `input`, not both."""

    model: str
    messages: list[dict[str, Any]] | None = None
    input: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    idempotency_key: str | None = None
    deadline: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    """Models to go on with, in this order, when the one before is exhausted."""
    stream: bool = False
    """Whether its chunks can be followed while it runs."""
    request: OperationRequest | None = None
    """In place of messages and input, from callers that have it already."""


class NewRequest(NamedTuple):
    """A row to insert, its columns in the order of the statement: a submission that was found valid."""

    id: str
    workspace_id: str
    provider_id: str
    model_id: str
    model_ref: str
    operation: ModelOperation
    priority: int
    idempotency_key: str | None
    request_digest: str | None
    deadline: datetime | None
    owner_id: str | None
    is_streamed: bool
    fallbacks: str
    """The models' ids, separated by spaces."""
    payload: bytes
    """The request's JSON."""
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    reserved_tokens: int
    max_attempts: int
    created_by: str | None


@dataclass(frozen=True, slots=True)
class RequestFilter:
    ids: Sequence[str] | None = None
    status: ModelRequestStatus | None = None
    provider_id: str | None = None
    model_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class ChunkGroup(NamedTuple):
    """Chunks of one lease that came together; `sequence` counts the groups of a lease from 0."""

    request_id: str
    lease_id: str
    sequence: int
    chunks: tuple[Chunk, ...]


FINAL_STATUSES: Final = frozenset(
    (ModelRequestStatus.COMPLETED, ModelRequestStatus.FAILED, ModelRequestStatus.CANCELLED)
)


class Progress(NamedTuple):
    """Where a running request is. `attempt` counts from 1 while it runs, and is 0 before its first call."""

    status: ModelRequestStatus
    lease_id: str | None
    attempt: int
    groups: tuple[ChunkGroup, ...]


class KeyedRequest(NamedTuple):
    """What a repeat under an idempotency key is held against."""

    id: str
    digest: str | None


class Outcome(StrEnum):
    """How an attempt ended.

    RETRY: the request waits again. FALLBACK: it goes on with its next model. RELEASED: nothing was sent, so no attempt
    is spent.
    """

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    RETRY = "RETRY"
    FALLBACK = "FALLBACK"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Safe to store and show."""

    code: str
    message: str
    retryable: bool
    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """The end of one attempt. `settled_tokens` None: what was used is not known, so the reservation stands."""

    request_id: str
    lease_id: str
    outcome: Outcome
    retry_seconds: float = 0
    attempts_more: int | None = None
    """With FALLBACK: how many attempts the next model gets."""
    provider_fault: bool = False
    """The failure counts towards opening the provider's circuit."""
    first_chunk_seconds: float | None = None
    """From the start to the first chunk of a streamed answer."""
    settled_tokens: int | None = None
    output: OperationOutput | None = None
    output_text: str | None = None
    usage: Usage | None = None
    cost: CostReceipt | None = None
    error: AttemptError | None = None
    cause: ProviderError | None = None
    """The error itself, for whoever waits for the answer; not stored."""
    response_model: str | None = None
    provider_request_id: str | None = None
    finish_reason: str | None = None
    http_status: int | None = None

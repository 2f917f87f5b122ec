"""Submitting, cancelling and reading requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Connection, Database
from app.errors import Conflict, NotFound, ValidationError
from app.requests import repository
from app.requests.preparation import Preparation
from app.requests.records import (
    LedgerEntry,
    ModelRequest,
    ModelRequestStatus,
    NewRequest,
    RequestAttempt,
    RequestFilter,
    SubmitRequest,
)
from app.requests.validation import is_storable_text

MAX_ATTEMPTS: Final = 3
MAX_BATCH: Final = 10_000
_INT4_MAX: Final = 2**31 - 1


class RequestService:
    def __init__(self, database: Database, snapshots: SnapshotHolder, preparation: Preparation) -> None:
        self._database = database
        self._snapshots = snapshots
        self._preparation = preparation

    async def submit(
        self, submission: SubmitRequest, *, workspace_id: str, created_by: str | None = None
    ) -> ModelRequest:
        """Writes one request, and wakes a worker in the same transaction.

        A submission repeated under its idempotency key answers the first request; a different one under the same
        key raises Conflict. Raises ValidationError, NotFound and ModelUnavailable, and writes nothing then.
        """
        return (await self.submit_many([submission], workspace_id=workspace_id, created_by=created_by))[0]

    async def submit_many(
        self, submissions: Sequence[SubmitRequest], *, workspace_id: str, created_by: str | None = None
    ) -> list[ModelRequest]:
        """All of a batch in one transaction, or none."""
        ids = await self.enqueue(submissions, workspace_id=workspace_id, created_by=created_by)
        async with self._database.connection() as connection:
            found = await repository.get_requests(connection, workspace_id, ids)
        return [found[id] for id in ids]

    async def enqueue(
        self, submissions: Sequence[SubmitRequest], *, workspace_id: str, created_by: str | None = None
    ) -> list[str]:
        """As `submit_many`, but answers only the ids, in order."""
        if not 1 <= len(submissions) <= MAX_BATCH:
            raise ValidationError("inputs", f"{len(submissions)} requests", f"between 1 and {MAX_BATCH} requests")
        now = datetime.now(UTC)
        snapshot = self._snapshots.current
        requests = [
            self._preparation.prepare(submission, snapshot, workspace_id=workspace_id, created_by=created_by, now=now)
            for submission in submissions
        ]
        try:
            return await self._insert(requests)
        except asyncpg.DeadlockDetectedError:
            # Another batch holds some of its idempotency keys and waited for others. It has gone on by now.
            return await self._insert(requests)
        except asyncpg.ForeignKeyViolationError:
            # The model went away between the snapshot and the insert.
            raise NotFound("LlmModel", ", ".join({s.model for s in submissions}), path=("model",)) from None

    async def _insert(self, requests: Sequence[NewRequest]) -> list[str]:
        async with self._database.transaction() as connection:
            inserted = await repository.insert_requests(connection, requests)
            ids = [request.id for request in requests]
            if len(inserted) < len(requests):
                for index, request in enumerate(requests):
                    if request.id not in inserted:
                        ids[index] = await self._existing(connection, request)
        return ids

    async def cancel(self, request_id: str, *, workspace_id: str) -> ModelRequest:
        """Cancels a waiting request at once; a running one as soon as its worker has stopped the call.

        Raises NotFound, and Conflict where it has already finished.
        """
        if not is_storable_text(request_id):
            raise NotFound("ModelRequest", request_id, path=("id",))
        async with self._database.transaction() as connection:
            before = (await repository.get_requests(connection, workspace_id, [request_id])).get(request_id)
            status = await repository.cancel_request(connection, workspace_id, request_id)
            after = (await repository.get_requests(connection, workspace_id, [request_id])).get(request_id)
        if before is None or after is None or status is None:
            raise NotFound("ModelRequest", request_id, path=("id",))
        if status in (ModelRequestStatus.COMPLETED, ModelRequestStatus.FAILED):
            raise Conflict(f"request {request_id} has already finished: it is {status}", path=("id",))
        return after

    async def get(self, request_id: str, *, workspace_id: str) -> ModelRequest | None:
        return (await self.get_many([request_id], workspace_id=workspace_id)).get(request_id)

    async def get_many(self, request_ids: Sequence[str], *, workspace_id: str) -> Mapping[str, ModelRequest]:
        storable = [id for id in request_ids if is_storable_text(id)]
        async with self._database.connection() as connection:
            return await repository.get_requests(connection, workspace_id, storable)

    async def page(
        self, where: RequestFilter, *, workspace_id: str, first: int, before_id: str | None = None
    ) -> tuple[list[ModelRequest], bool]:
        """Up to `first` requests, newest first, and whether there are more."""
        async with self._database.connection() as connection:
            rows = await repository.list_requests(connection, workspace_id, where, before_id=before_id, limit=first + 1)
        return rows[:first], len(rows) > first

    async def count(self, where: RequestFilter, *, workspace_id: str) -> int:
        async with self._database.connection() as connection:
            return await repository.count_requests(connection, workspace_id, where)

    async def attempts_of(self, request_ids: Sequence[str]) -> Mapping[str, list[RequestAttempt]]:
        async with self._database.connection() as connection:
            return await repository.attempts_of(connection, request_ids)

    async def ledger_entries_of(self, request_ids: Sequence[str]) -> Mapping[str, list[LedgerEntry]]:
        async with self._database.connection() as connection:
            return await repository.ledger_entries_of(connection, request_ids)

    async def _existing(self, connection: Connection, request: NewRequest) -> str:
        assert request.idempotency_key is not None
        existing = await repository.get_request_by_key(connection, request.workspace_id, request.idempotency_key)
        if existing is None:
            raise Conflict(
                f"idempotency key {request.idempotency_key!r} is being used by another submission; try again",
                path=("idempotencyKey",),
            )
        if existing.request_digest != request.request_digest:
            raise Conflict(
                f"idempotency key {request.idempotency_key!r} belongs to request {existing.id}, which is not the same",
                path=("idempotencyKey",),
            )
        return existing.id

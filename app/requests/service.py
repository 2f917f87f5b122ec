"""Submitting, cancelling and reading requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database
from app.errors import Conflict, NotFound, RequestRefused, ValidationError
from app.requests import repository
from app.requests.idempotency import named_ref, submission_digest
from app.requests.preparation import Preparation
from app.requests.records import (
    KeyedRequest,
    LedgerEntry,
    ModelRequest,
    ModelRequestStatus,
    NewRequest,
    Progress,
    RequestAttempt,
    RequestFilter,
    SubmitRequest,
)
from app.requests.validation import is_storable_text

MAX_BATCH: Final = 10_000
_STORABLE: Final = "free of NUL characters and halves of surrogate pairs"


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
        ids = await self._enqueue([submission], workspace_id, created_by)
        return (await self._read(ids, workspace_id))[0]

    async def submit_many(
        self, submissions: Sequence[SubmitRequest], *, workspace_id: str, created_by: str | None = None
    ) -> list[ModelRequest]:
        """All of a batch in one transaction, or none. The path of an error begins with "inputs" and the place."""
        return await self._read(
            await self.enqueue(submissions, workspace_id=workspace_id, created_by=created_by), workspace_id
        )

    async def enqueue(
        self, submissions: Sequence[SubmitRequest], *, workspace_id: str, created_by: str | None = None
    ) -> list[str]:
        """As `submit_many`, but answers only the ids, in order."""
        if not 1 <= len(submissions) <= MAX_BATCH:
            raise ValidationError("inputs", f"{len(submissions)} requests", f"between 1 and {MAX_BATCH} requests")
        return await self._enqueue(submissions, workspace_id, created_by, within=("inputs",))

    async def _enqueue(
        self,
        submissions: Sequence[SubmitRequest],
        workspace_id: str,
        created_by: str | None,
        within: tuple[str, ...] = (),
    ) -> list[str]:
        """With `within`, errors name the place of their submission after it."""
        snapshot = self._snapshots.current
        prepared = self._prepare(submissions, snapshot, workspace_id, created_by)
        refused = {place: item for place, item in enumerate(prepared) if isinstance(item, RequestRefused)}
        ids: dict[int, str] = {}
        if refused:
            ids = await self._repeated(submissions, refused, snapshot, workspace_id, within)
        new = {place: item for place, item in enumerate(prepared) if isinstance(item, NewRequest)}
        if new:
            try:
                ids |= await self._insert(new, workspace_id, within)
            except asyncpg.DeadlockDetectedError:
                # Another batch holds some of its idempotency keys and waited for others. It has gone on by now.
                ids |= await self._insert(new, workspace_id, within)
            except asyncpg.ForeignKeyViolationError:
                # The model went away between the snapshot and the insert.
                raise NotFound("LlmModel", ", ".join({s.model for s in submissions}), path=("model",)) from None
        return [ids[place] for place in range(len(submissions))]

    def _prepare(
        self, submissions: Sequence[SubmitRequest], snapshot: Snapshot, workspace_id: str, created_by: str | None
    ) -> list[NewRequest | RequestRefused]:
        now = datetime.now(UTC)
        prepared: list[NewRequest | RequestRefused] = []
        for submission in submissions:
            try:
                prepared.append(
                    self._preparation.prepare(
                        submission, snapshot, workspace_id=workspace_id, created_by=created_by, now=now
                    )
                )
            except RequestRefused as refused:
                prepared.append(refused)
                if submission.idempotency_key is None:
                    break
        return prepared

    async def _repeated(
        self,
        submissions: Sequence[SubmitRequest],
        refused: Mapping[int, RequestRefused],
        snapshot: Snapshot,
        workspace_id: str,
        within: tuple[str, ...],
    ) -> dict[int, str]:
        """The first requests of what could not be submitted now, but was before: its deadline or model has passed."""
        keys = [submissions[place].idempotency_key for place in refused]
        known: dict[str, KeyedRequest] = {}
        if storable := [key for key in keys if key is not None and is_storable_text(key)]:
            async with self._database.connection() as connection:
                known = await repository.find_keyed(connection, workspace_id, storable)
        ids = {}
        for place, refusal in refused.items():
            submission = submissions[place]
            ref = named_ref(snapshot, submission.model)
            first = known.get(submission.idempotency_key or "")
            if first is None or ref is None:
                raise _located(refusal, within, place)
            assert submission.idempotency_key is not None
            digest = submission_digest(submission, ref)
            ids[place] = _same(submission.idempotency_key, first, digest, within, place)
        return ids

    async def _insert(
        self, requests: Mapping[int, NewRequest], workspace_id: str, within: tuple[str, ...]
    ) -> dict[int, str]:
        async with self._database.transaction() as connection:
            inserted = await repository.insert_requests(connection, list(requests.values()))
            repeats = {place: request for place, request in requests.items() if request.id not in inserted}
            known: dict[str, KeyedRequest] = {}
            if repeats:
                keys = {request.idempotency_key or "" for request in repeats.values()}
                known = await repository.find_keyed(connection, workspace_id, keys)
            ids = {place: request.id for place, request in requests.items()}
            for place, request in repeats.items():
                assert request.idempotency_key is not None
                first = known.get(request.idempotency_key)
                ids[place] = _same(request.idempotency_key, first, request.request_digest, within, place)
        return ids

    async def _read(self, ids: Sequence[str], workspace_id: str) -> list[ModelRequest]:
        async with self._database.connection() as connection:
            found = await repository.get_requests(connection, workspace_id, ids)
        return [found[id] for id in ids]

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
        """Up to `first` requests, newest first, and whether there are more. Raises ValidationError."""
        _check_filter(where)
        if before_id is not None and not is_storable_text(before_id):
            raise ValidationError("after", before_id, _STORABLE)
        async with self._database.connection() as connection:
            rows = await repository.list_requests(connection, workspace_id, where, before_id=before_id, limit=first + 1)
        return rows[:first], len(rows) > first

    async def count(self, where: RequestFilter, *, workspace_id: str) -> int:
        _check_filter(where)
        async with self._database.connection() as connection:
            return await repository.count_requests(connection, workspace_id, where)

    async def attempts_of(self, request_ids: Sequence[str]) -> Mapping[str, list[RequestAttempt]]:
        async with self._database.connection() as connection:
            return await repository.attempts_of(connection, request_ids)

    async def ledger_entries_of(self, request_ids: Sequence[str]) -> Mapping[str, list[LedgerEntry]]:
        async with self._database.connection() as connection:
            return await repository.ledger_entries_of(connection, request_ids)

    async def progress(
        self, request_id: str, *, workspace_id: str, lease_id: str | None = None, after_sequence: int = -1
    ) -> Progress | None:
        """Where a request is, with what its running call has answered since `after_sequence` of `lease_id`."""
        if not is_storable_text(request_id):
            return None
        async with self._database.connection() as connection:
            return await repository.read_progress(
                connection, workspace_id, request_id, lease_id=lease_id, after_sequence=after_sequence
            )


def _same(key: str, first: KeyedRequest | None, digest: str | None, within: tuple[str, ...], place: int) -> str:
    """The id of the request that is there already under the key. Raises Conflict where it is another one."""
    if first is None:
        refusal = Conflict(
            f"idempotency key {key!r} is being used by another submission; try again", path=("idempotencyKey",)
        )
        raise _located(refusal, within, place)
    if digest is None or first.digest != digest:
        refusal = Conflict(
            f"idempotency key {key!r} belongs to request {first.id}, which is not the same", path=("idempotencyKey",)
        )
        raise _located(refusal, within, place)
    return first.id


def _located(refusal: RequestRefused, within: tuple[str, ...], place: int) -> RequestRefused:
    if within:
        refusal.path = (*within, str(place), *refusal.path)
    return refusal


def _check_filter(where: RequestFilter) -> None:
    ids = [("filter.ids", id) for id in where.ids or ()]
    for field, value in (("filter.providerId", where.provider_id), ("filter.modelId", where.model_id), *ids):
        if value is not None and not is_storable_text(value):
            raise ValidationError(field, value, _STORABLE, path=tuple(field.split(".")))

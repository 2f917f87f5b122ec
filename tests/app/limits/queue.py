"""A provider's queue for tests, at instants that the test chooses: the provider's clock never goes back, so one that
is set ahead of the server's stands still there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from app.db.ids import new_id
from app.db.pool import Connection
from app.limits import repository as limits
from app.limits.records import Claim, ClaimedRequest, LeaseId
from app.providers.messages import Message, Role, Text
from app.providers.operations import ChatRequest, encode
from app.requests import repository as requests
from app.requests.records import (
    AttemptResult,
    ModelOperation,
    ModelRequest,
    ModelRequestStatus,
    NewRequest,
    Outcome,
)
from tests.catalog_rows import CatalogRow, insert_model

START = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
LEASE_SECONDS = 3600.0
HELLO = encode(ChatRequest([Message(Role.USER, [Text("Hello")])]))


class Queue:
    """One provider, by default at START."""

    def __init__(self, connection: Connection, row: CatalogRow) -> None:
        self.connection = connection
        self.row = row

    @classmethod
    async def create(cls, connection: Connection, *, at: datetime | None = START, **limits: Any) -> Queue:
        queue = cls(connection, await insert_model(connection, **limits))
        if at is not None:
            await queue.set_clock(at)
        return queue

    async def set_clock(self, at: datetime) -> None:
        await self.connection.execute(
            "UPDATE limit_states SET clock = $2 WHERE provider_id = $1", self.row.provider_id, at
        )

    async def edit(self, **columns: Any) -> None:
        """Of the provider's row, as an operator does."""
        for name, value in columns.items():
            await self.connection.execute(
                f"UPDATE llm_providers SET {name} = $2, updated_at = now() WHERE id = $1", self.row.provider_id, value
            )

    async def submit(self, count: int = 1, **values: Any) -> list[str]:
        made = [self._new(values) for _ in range(count)]
        assert len(await requests.insert_requests(self.connection, made)) == count
        return [request.id for request in made]

    def _new(self, values: dict[str, Any]) -> NewRequest:
        fields: dict[str, Any] = {
            "id": new_id(),
            "workspace_id": "default",
            "provider_id": self.row.provider_id,
            "model_id": self.row.model_id,
            "model_ref": self.row.ref,
            "operation": ModelOperation.CHAT,
            "priority": 0,
            "idempotency_key": None,
            "request_digest": None,
            "deadline": None,
            "owner_id": None,
            "is_streamed": False,
            "fallbacks": "",
            "payload": HELLO,
            "parameters": {},
            "metadata": {},
            "reserved_tokens": 100,
            "max_attempts": 3,
            "created_by": None,
        }
        return NewRequest(**fields | values)

    async def claim(
        self, at: datetime | None = None, *, capacity: int = 100, lease_seconds: float = LEASE_SECONDS
    ) -> Claim:
        if at is not None:
            await self.set_clock(at)
        claim = await limits.claim_requests(
            self.connection,
            self.row.provider_id,
            worker_id="worker-1",
            capacity=capacity,
            lease_seconds=lease_seconds,
        )
        assert claim is not None
        return claim

    async def claimed_ids(self, at: datetime | None = None, *, capacity: int = 100) -> set[str]:
        return {request.request_id for request in (await self.claim(at, capacity=capacity)).requests}

    async def finish(
        self, claimed: Sequence[ClaimedRequest], outcome: Outcome = Outcome.COMPLETED, **values: Any
    ) -> dict[str, ModelRequestStatus]:
        results = [
            AttemptResult(request_id=one.request_id, lease_id=one.lease_id, outcome=outcome, **values)
            for one in claimed
        ]
        return await requests.finish_requests(self.connection, results)

    async def renew(self, claimed: Sequence[ClaimedRequest], *, lease_seconds: float = LEASE_SECONDS) -> set[str]:
        held = [(one.request_id, LeaseId(one.lease_id)) for one in claimed]
        renewed = await limits.renew_leases(self.connection, held, lease_seconds=lease_seconds)
        return {lease.request_id for lease in renewed}

    async def get(self, request_id: str) -> ModelRequest:
        return (await requests.get_requests(self.connection, "default", [request_id]))[request_id]

    async def attempts(self, request_id: str) -> list[tuple[int, str]]:
        attempts = (await requests.attempts_of(self.connection, [request_id])).get(request_id, [])
        return [(attempt.number, attempt.status) for attempt in attempts]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)

"""One provider at the emulator, and what a test asks of the requests that workers run for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.db.pool import Database
from app.requests.records import LedgerEntry, ModelRequest, RequestAttempt, SubmitRequest
from app.requests.service import RequestService
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.worker_process import request_service, wait_finished

HELLO = [{"role": "user", "content": "Hello"}]


class Work:
    def __init__(self, database: Database, dsn: str, emulator: Emulator, service: RequestService, ref: str) -> None:
        self.database = database
        self.dsn = dsn
        self.emulator = emulator
        self.service = service
        self.ref = ref

    async def submit(self, **changes: Any) -> str:
        fields: dict[str, Any] = {"model": self.ref, "messages": HELLO}
        request = await self.service.submit(SubmitRequest(**fields | changes), workspace_id="default")
        return request.id

    async def finished(self, *request_ids: str) -> ModelRequest:
        """The first of them, when all are in a final state."""
        await wait_finished(self.dsn, request_ids)
        return await self.get(request_ids[0])

    async def run(self, **changes: Any) -> ModelRequest:
        return await self.finished(await self.submit(**changes))

    async def get(self, request_id: str) -> ModelRequest:
        request = await self.service.get(request_id, workspace_id="default")
        assert request is not None
        return request

    async def attempts(self, request_id: str) -> list[RequestAttempt]:
        return (await self.service.attempts_of([request_id])).get(request_id, [])

    async def ledger(self, request_id: str) -> list[LedgerEntry]:
        return (await self.service.ledger_entries_of([request_id])).get(request_id, [])

    def configure(self, **settings: Any) -> None:
        self.emulator.configure("acme", **settings)

    def record(self) -> dict[str, Any]:
        return self.emulator.record("acme")

    async def seen(self, **counts: int) -> None:
        """Returns when the emulator has seen so many arrivals, running or ended calls."""
        await asyncio.to_thread(self.emulator.wait, "acme", **counts)

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)

    async def value(self, query: str, *arguments: object) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *arguments)


@asynccontextmanager
async def work_for(
    database: Database, dsn: str, emulator: Emulator, *, provider: str = "acme", **limits: Any
) -> AsyncIterator[Work]:
    async with database.connection() as connection:
        row = await insert_model(connection, provider=provider, base_url=emulator.url(provider), **limits)
    async with request_service(database) as service:
        yield Work(database, dsn, emulator, service, row.ref)

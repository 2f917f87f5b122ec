"""Large batches are written by COPY; what they write is what single submissions write."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from app.db.listen import WORK
from app.db.pool import Database
from app.errors import NotFound
from app.requests.records import SubmitRequest
from tests.catalog_rows import CatalogRow, insert_model
from tests.worker_process import request_service

COUNT = 200
FULL = SubmitRequest(
    model="acme:chat-1",
    messages=[{"role": "user", "content": "Grüße, 世界"}],
    parameters={"max_tokens": 5, "temperature": 0.5},
    priority=3,
    deadline=datetime(2100, 1, 1, tzinfo=UTC),
    metadata={"task": "test"},
)
DIFFERENT = {"id", "sequence", "created_at"}


@pytest.fixture
async def row(database: Database) -> CatalogRow:
    async with database.connection() as connection:
        return await insert_model(connection, base_url="http://localhost/v1")


async def test_a_large_batch_writes_the_rows_that_single_submissions_write(database: Database, row: CatalogRow) -> None:
    async with database.connection() as connection, request_service(database) as service:
        single = (await service.enqueue([FULL], workspace_id="default", created_by="somebody"))[0]
        ids = await service.enqueue([FULL] * COUNT, workspace_id="default", created_by="somebody")
        rows = await connection.fetch("SELECT * FROM model_requests ORDER BY sequence")

    assert [row["id"] for row in rows] == [single, *ids]
    expected, *copied = [{name: row[name] for name in row.keys() if name not in DIFFERENT} for row in rows]  # noqa: SIM118 - a Record iterates over its values
    assert all(row == expected for row in copied)
    assert all(row["available_at"] < row["created_at"] for row in rows)


async def test_a_large_batch_wakes_the_workers_when_it_is_committed(database: Database, row: CatalogRow) -> None:
    async with request_service(database) as service:
        heard: asyncio.Queue[object] = asyncio.Queue()
        listening = await asyncpg.connect(database.dsn)
        await listening.add_listener(WORK, lambda *arguments: heard.put_nowait(arguments[-1]))
        await service.enqueue([FULL] * COUNT, workspace_id="default")
        async with asyncio.timeout(10):
            assert await heard.get() == row.provider_id
        await listening.close()


async def test_a_large_batch_with_idempotency_keys_writes_each_key_once(database: Database, row: CatalogRow) -> None:
    async with database.connection() as connection, request_service(database) as service:
        keyed = [replace(FULL, idempotency_key=f"key-{number % 100}") for number in range(COUNT)]
        ids = await service.enqueue(keyed, workspace_id="default")
        written = await connection.fetchval("SELECT count(*) FROM model_requests")

    assert written == 100
    assert ids[:100] == ids[100:]


async def test_nothing_of_a_large_batch_is_written_where_its_model_has_gone(
    database: Database, row: CatalogRow
) -> None:
    async with database.connection() as connection, request_service(database) as service:
        await service.enqueue([FULL], workspace_id="default")
        await connection.execute("DELETE FROM llm_models WHERE id = $1", row.model_id)
        with pytest.raises(NotFound):
            await service.enqueue([FULL] * COUNT, workspace_id="default")
        assert await connection.fetchval("SELECT count(*) FROM model_requests") == 1

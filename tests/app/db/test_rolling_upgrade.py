"""A process of the last release goes on while a newer one migrates the database under it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asyncpg import Record

from app.db.ids import new_id
from app.db.migrate import MIGRATIONS, migrate
from app.db.pool import Connection, Database
from tests.catalog_rows import CatalogRow, insert_model

RELEASED = ("0001_catalog", "0002_requests")


@pytest.fixture
async def database(empty_database_dsn: str, tmp_path: Path) -> AsyncIterator[Database]:
    """As the last release made it."""
    for name in RELEASED:
        shutil.copytree(MIGRATIONS / name, tmp_path / name)
    database = await Database.connect(empty_database_dsn, size=2)
    assert await migrate(database, tmp_path) == RELEASED
    yield database
    await database.close()


class OldProcess:
    """The statements of the last release, which its connection has prepared."""

    def __init__(self, connection: Connection, row: CatalogRow) -> None:
        self.connection = connection
        self.row = row

    async def submit(self) -> None:
        await self.connection.execute(
            """
            INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, payload, reserved_tokens)
            VALUES ($1, 'default', $2, $3, $4, '{}', 10)
            """,
            new_id(),
            self.row.provider_id,
            self.row.model_id,
            self.row.ref,
        )

    async def keep_owner(self) -> None:
        await self.connection.execute(
            """
            WITH gone AS (DELETE FROM owner_processes WHERE expires_at < clock_timestamp() - interval '1 day')
            INSERT INTO owner_processes (id, expires_at) VALUES ($1, clock_timestamp() + $2 * interval '1 second')
            ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
            """,
            "owner",
            30.0,
        )

    async def claim(self) -> list[Record]:
        return await self._claimed(
            "SELECT * FROM claim_requests($1, $2, $3, $4, $5)", self.row.provider_id, "worker", 10, 30.0, None
        )

    async def submit_and_claim(self) -> list[Record]:
        request = {
            "id": new_id(),
            "workspace_id": "default",
            "provider_id": self.row.provider_id,
            "model_id": self.row.model_id,
            "model_ref": self.row.ref,
            "operation": "CHAT",
            "priority": 0,
            "is_streamed": False,
            "fallbacks": "",
            "payload": {},
            "parameters": {},
            "metadata": {},
            "reserved_tokens": 10,
            "max_attempts": 3,
        }
        return await self._claimed(
            "SELECT * FROM submit_and_claim($1, $2, $3, $4)", json.dumps([request]).encode(), "owner", 10, 30.0
        )

    async def _claimed(self, statement: str, *arguments: Any) -> list[Record]:
        rows = await self.connection.fetch(statement, *arguments)
        assert rows[-1]["request_id"] is None
        assert rows[-1]["send_within_seconds"] > 0
        return rows[:-1]

    async def renew(self, held: list[Record]) -> set[str]:
        rows = await self.connection.fetch(
            "SELECT * FROM renew_leases($1, $2, $3)",
            [row["request_id"] for row in held],
            [row["lease_id"] for row in held],
            30.0,
        )
        return {row["request_id"] for row in rows}

    async def finish(self, held: list[Record]) -> dict[str, str]:
        results = [
            {"request_id": row["request_id"], "lease_id": row["lease_id"], "outcome": "COMPLETED", "settled_tokens": 3}
            for row in held
        ]
        rows = await self.connection.fetch("SELECT * FROM finish_requests($1, $2)", json.dumps(results).encode(), b"[]")
        return {row["request_id"]: row["status"] for row in rows}

    async def work(self) -> list[Record]:
        """One turn of everything; answers what it holds."""
        await self.keep_owner()
        await self.submit()
        held = await self.claim() + await self.submit_and_claim()
        assert len(held) == 2
        assert await self.renew(held) == {row["request_id"] for row in held}
        return held


async def test_a_process_of_the_last_release_works_on_through_the_migration(database: Database) -> None:
    async with database.connection() as connection:
        old = OldProcess(connection, await insert_model(connection))
        held = await old.work()
        assert await old.finish(held[:1]) == {held[0]["request_id"]: "COMPLETED"}
        applied = await migrate(database)
        assert applied[0] == "0003_steady_clock"
        # What it held before, it renews and ends; and what comes after is as before.
        assert await old.renew(held[1:]) == {held[1]["request_id"]}
        assert await old.finish(held[1:]) == {held[1]["request_id"]: "COMPLETED"}
        held = await old.work()
        assert set((await old.finish(held)).values()) == {"COMPLETED"}
        window = await connection.fetchrow("SELECT last_sequence, window_tokens FROM limit_states")
        assert tuple(window or ()) == (4, 12)


async def test_a_transaction_of_the_last_release_that_outlasts_the_migration_is_no_worse_off(
    database: Database,
) -> None:
    """There a statement cannot be prepared again by itself; that it need not be, since its answer has the same form."""
    async with database.connection() as connection:
        old = OldProcess(connection, await insert_model(connection))
        held = await old.work()
        await old.finish(held[:1])
        await migrate(database)
        async with connection.transaction():
            assert await old.renew(held[1:]) == {held[1]["request_id"]}
            assert set((await old.finish(held[1:])).values()) == {"COMPLETED"}
            await old.work()

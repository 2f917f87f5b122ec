"""Configuration as code: what would change, making it so, and writing what is."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from app.catalog import repository as catalog
from app.catalog.records import DEFAULT_WORKSPACE
from app.catalog.snapshot import Snapshot
from app.configuration import repository
from app.configuration.apply import apply_plan
from app.configuration.export import write_document
from app.configuration.plan import decide
from app.configuration.records import NOT_REFERENCED, Document, Plan
from app.db.pool import Connection, Database
from app.errors import Conflict


class ConfigurationService:
    """Raises ConfigurationError where a document asks for what the catalog does not allow; nothing is changed then."""

    def __init__(self, database: Database, *, workspace_id: str = DEFAULT_WORKSPACE) -> None:
        self._database = database
        self._workspace_id = workspace_id

    async def plan(self, document: Document, *, prune: bool = False) -> Plan:
        """Writes nothing, and waits for nobody."""
        async with self._database.connection() as connection, connection.transaction(isolation="repeatable_read"):
            plan, _ = await self._decide(connection, document, prune)
            return plan

    async def apply(self, document: Document, *, prune: bool = False, shown: Plan | None = None) -> Plan:
        """Plans anew and writes, in one transaction in which nobody else changes the catalog.

        Raises Conflict where `shown`, which somebody agreed to, is no longer what would be done, and where others
        hold the catalog for half a minute.
        """
        try:
            async with self._database.transaction() as connection:
                await repository.lock(connection)
                if prune:
                    await repository.lock_rows(connection, self._workspace_id)
                plan, snapshot = await self._decide(connection, document, prune)
                if shown is not None and plan != shown:
                    raise Conflict("the catalog has changed since the plan was shown: nothing was applied; plan again")
                await apply_plan(connection, plan, snapshot, self._workspace_id)
                return plan
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            raise Conflict("others are changing the catalog: nothing was applied; try again") from None

    async def export(self) -> str:
        """The catalog as a document, of which a plan finds no difference."""
        snapshot, at = await self._read()
        return write_document(snapshot, at=at, workspace_id=self._workspace_id)

    async def snapshot(self) -> Snapshot:
        snapshot, _ = await self._read()
        return snapshot

    async def _read(self) -> tuple[Snapshot, datetime]:
        async with self._database.connection() as connection, connection.transaction(isolation="repeatable_read"):
            return await catalog.load_snapshot(connection), await repository.read_clock(connection)

    async def _decide(self, connection: Connection, document: Document, prune: bool) -> tuple[Plan, Snapshot]:
        snapshot = await catalog.load_snapshot(connection)
        referenced = await repository.find_referenced(connection, self._workspace_id) if prune else NOT_REFERENCED
        plan = decide(
            document,
            snapshot,
            at=await repository.read_clock(connection),
            workspace_id=self._workspace_id,
            prune=prune,
            referenced=referenced,
        )
        return plan, snapshot

"""The seed's use cases: each plans and writes in one transaction, so that a failure leaves nothing behind."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from app.db.pool import Database
from seed import repository
from seed.apply import Progress, apply_plan
from seed.genai_prices import load_genai_prices
from seed.plan import Item, Plan, Source, decide
from seed.reference import load_reference


async def seed_reference(database: Database, *, dry_run: bool = False, progress: Progress | None = None) -> Plan:
    """Six providers, their models and settings. `dry_run`: returns the plan and writes nothing."""
    return await _seed(database, Source.REFERENCE, load_reference(), dry_run, progress)


async def seed_genai_prices(
    database: Database, *, dry_run: bool = False, progress: Progress | None = None, at: datetime | None = None
) -> Plan:
    """Every provider and model of the installed genai-prices, with the prices in force at `at` (None: now)."""
    items = await asyncio.to_thread(load_genai_prices, at or datetime.now(UTC))
    return await _seed(database, Source.GENAI_PRICES, items, dry_run, progress)


async def is_empty(database: Database) -> bool:
    """Whether the catalog has no provider at all."""
    async with database.connection() as connection:
        return not await repository.has_provider(connection)


async def seed_if_empty(database: Database) -> Plan | None:
    """Seeds the reference where there is no provider at all; None where there is one. Several processes may try."""
    if not await is_empty(database):
        return None
    async with database.transaction() as connection:
        await repository.lock(connection)
        if await repository.has_provider(connection):
            return None
        loaded = await repository.load(connection)
        plan = decide(Source.REFERENCE, load_reference(), loaded.catalog)
        await apply_plan(connection, plan, loaded)
        return plan


async def _seed(
    database: Database, source: Source, items: list[Item], dry_run: bool, progress: Progress | None
) -> Plan:
    async with database.transaction() as connection:
        if not dry_run:
            await repository.lock(connection)
        loaded = await repository.load(connection)
        plan = decide(source, items, loaded.catalog)
        if not dry_run:
            await apply_plan(connection, plan, loaded, progress)
        return plan

"""A catalog service over a fresh database, with its snapshots."""

from __future__ import annotations

import pytest

from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database


@pytest.fixture
async def snapshots(database: Database) -> SnapshotHolder:
    holder = SnapshotHolder(database)
    await holder.refresh()
    return holder


@pytest.fixture
def catalog(database: Database, snapshots: SnapshotHolder) -> CatalogService:
    return CatalogService(database, snapshots, adapters=("openai", "anthropic"))

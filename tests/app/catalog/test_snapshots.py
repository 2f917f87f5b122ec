"""The snapshot follows the database: in this process, in another one, and over a lost connection."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.catalog import repository
from app.catalog.records import CreateModel, CreateProvider, UpdateModel, UpdateProvider
from app.catalog.service import CatalogService
from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.listen import Listener
from app.db.pool import Database
from app.errors import DatabaseUnavailable
from app.settings.service import SettingsService


@asynccontextmanager
async def following(database: Database, dsn: str) -> AsyncIterator[tuple[SnapshotHolder, Listener]]:
    holder = SnapshotHolder(database, poll_seconds=0.05)
    listener = Listener(dsn)
    holder.attach(listener)
    await listener.start()
    try:
        yield holder, listener
    finally:
        await listener.stop()
        await holder.stop()


async def holds(holder: SnapshotHolder, revision: int) -> None:
    """Returns when the holder has reached the revision by itself."""
    reached = asyncio.Event()
    unsubscribe = holder.on_change(lambda snapshot: reached.set() if snapshot.revision >= revision else None)
    try:
        if holder.current.revision < revision:
            async with asyncio.timeout(10):
                await reached.wait()
    finally:
        unsubscribe()


async def kill_listeners(dsn: str) -> int:
    """Ends every LISTEN connection of this database, as a failing network would."""
    connection = await asyncpg.connect(dsn)
    try:
        killed: int = await connection.fetchval(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = 'tollgate listener' AND datname = current_database()"""
        )
        return killed
    finally:
        await connection.close()


async def test_before_the_first_read_there_is_no_catalog(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        _ = SnapshotHolder(database).current


async def test_another_process_sees_a_change_within_100_ms(catalog: CatalogService, database_dsn: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.app.catalog.follow",
        database_dsn,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            await process.stdout.readline()
            provider = await catalog.create_provider(CreateProvider(name="p", display_name="P"))
            delays = []
            for limit in range(1, 21):
                before = catalog._snapshots.current.revision
                await catalog.update_provider(provider.id, UpdateProvider(requests_per_minute=limit))
                answered = time.monotonic_ns()
                seen = before
                while seen <= before:
                    seen, seen_at = map(int, (await process.stdout.readline()).split())
                delays.append((seen_at - answered) / 1e6)
    finally:
        process.kill()
        await process.communicate()
    # The middle of twenty: one of them may meet a busy machine.
    assert sorted(delays)[len(delays) // 2] < 100, delays


async def test_a_killed_listen_connection_misses_nothing(database: Database, database_dsn: str) -> None:
    writing = SnapshotHolder(database)
    catalog = CatalogService(database, writing)
    await writing.refresh()
    async with following(database, database_dsn) as (holder, _):
        assert await kill_listeners(database_dsn) == 1
        await catalog.create_provider(CreateProvider(name="missed", display_name="Missed"))
        await holds(holder, writing.current.revision)
        assert holder.current.provider_by_name("default", "missed") is not None


async def test_while_the_listener_is_down_the_revision_is_polled(database: Database, database_dsn: str) -> None:
    writing = SnapshotHolder(database)
    catalog = CatalogService(database, writing)
    await writing.refresh()
    async with following(database, database_dsn) as (holder, listener):
        await listener.stop()
        await catalog.create_provider(CreateProvider(name="polled", display_name="Polled"))
        await holds(holder, writing.current.revision)


async def test_many_refreshes_share_few_loads(
    database: Database, snapshots: SnapshotHolder, catalog: CatalogService
) -> None:
    await catalog.create_provider(CreateProvider(name="p", display_name="P"))
    loaded: list[int] = []
    following = SnapshotHolder(database)
    following.on_change(lambda snapshot: loaded.append(snapshot.revision))
    answers = await asyncio.gather(*(following.refresh() for _ in range(50)))
    assert {answer.revision for answer in answers} == {snapshots.current.revision}
    assert len(loaded) == 1


async def test_a_snapshot_never_goes_back(database: Database, catalog: CatalogService) -> None:
    seen: list[int] = []
    holder = SnapshotHolder(database)
    holder.on_change(lambda snapshot: seen.append(snapshot.revision))
    provider = await catalog.create_provider(CreateProvider(name="p", display_name="P"))

    async def change(limit: int) -> None:
        await catalog.update_provider(provider.id, UpdateProvider(requests_per_minute=limit))
        await holder.refresh()

    await asyncio.gather(*(change(limit) for limit in range(1, 25)))
    assert seen == sorted(set(seen))
    assert holder.current.revision == catalog._snapshots.current.revision


async def test_each_change_reads_its_own_write_under_load(database: Database, catalog: CatalogService) -> None:
    async def create_and_read(number: int) -> Snapshot:
        created = await catalog.create_provider(CreateProvider(name=f"p{number}", display_name="P"))
        snapshot = catalog._snapshots.current
        assert snapshot.provider(created.id) == created
        return snapshot

    await asyncio.gather(*(create_and_read(number) for number in range(40)))
    assert len(catalog._snapshots.current.providers) == 40


def contents(snapshot: Snapshot) -> tuple[object, ...]:
    prices = {price.id: price for price in snapshot.prices}
    return snapshot.revision, snapshot.providers, snapshot.models, prices, snapshot.settings


async def full(database: Database) -> Snapshot:
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await repository.load_snapshot(connection)


async def test_a_reload_of_what_was_written_since_equals_a_full_one(
    database: Database, catalog: CatalogService, snapshots: SnapshotHolder
) -> None:
    providers = [await catalog.create_provider(CreateProvider(name=f"p{n}", display_name="P")) for n in range(3)]
    models = [
        await catalog.create_model(CreateModel(provider_id=providers[n % 3].id, model_id=f"m{n}", display_name="M"))
        for n in range(9)
    ]
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: catalog.update_model(models[0].id, UpdateModel(cost_input_per_million="1.5")),
        lambda: catalog.set_default_model(models[1].id),
        lambda: catalog.set_default_model(models[4].id),
        lambda: catalog.delete_model(models[2].id),
        lambda: catalog.delete_provider(providers[0].id),
        lambda: catalog.create_provider(CreateProvider(name="p0", display_name="Again")),
        lambda: SettingsService(database, snapshots).set("a", 1),
        lambda: SettingsService(database, snapshots).delete("a"),
    ]
    for change in changes:
        await change()
        assert contents(snapshots.current) == contents(await full(database))


async def test_what_was_under_way_while_reading_is_read_when_it_is_committed(
    database: Database, snapshots: SnapshotHolder
) -> None:
    insert = """INSERT INTO llm_providers (id, workspace_id, name, display_name, updated_at)
                VALUES ($1, 'default', $1, 'P', now())"""
    async with database.transaction() as connection:
        await connection.execute(insert, "outer")
        async with connection.transaction():
            await connection.execute(insert, "inner")
        async with database.connection() as other:
            # Raises the newest transaction id beyond that of the subtransaction.
            await other.execute("UPDATE workspaces SET updated_at = now()")
        holder = SnapshotHolder(database)
        assert (await holder.refresh()).providers == ()
    assert [provider.name for provider in (await holder.refresh()).providers] == ["inner", "outer"]
    assert contents(holder.current) == contents(await full(database))


async def test_a_notice_of_a_revision_that_never_was_does_no_harm(database: Database, database_dsn: str) -> None:
    writing = SnapshotHolder(database)
    catalog = CatalogService(database, writing)
    await writing.refresh()
    async with following(database, database_dsn) as (holder, _):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_notify('tollgate_catalog', '999999')")
        await catalog.create_provider(CreateProvider(name="p", display_name="P"))
        await holds(holder, writing.current.revision)

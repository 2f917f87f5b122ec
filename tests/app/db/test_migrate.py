"""Migrations on a real server: first, again, from many processes, and with a history that does not fit."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from app.db.migrate import MIGRATIONS, load_migrations, migrate, pending
from app.db.pool import Database
from app.errors import MigrationError

ALL = tuple(migration.name for migration in load_migrations())

MIGRATE_IN_A_PROCESS = """
import asyncio, sys
from app.db.migrate import migrate
from app.db.pool import Database

async def main() -> None:
    database = await Database.connect(sys.argv[1], size=2)
    print("ready", flush=True)
    sys.stdin.readline()
    print(*await migrate(database))

asyncio.run(main())
"""


@pytest.fixture
async def empty_database(empty_database_dsn: str) -> AsyncIterator[Database]:
    database = await Database.connect(empty_database_dsn)
    yield database
    await database.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two small migrations of the test's own."""
    add_migration(tmp_path, "0001_first", "CREATE TABLE first (id int);")
    add_migration(tmp_path, "0002_second", "CREATE TABLE second (id int);\nINSERT INTO second VALUES (1);")
    return tmp_path


def add_migration(directory: Path, name: str, script: str) -> Path:
    (directory / name).mkdir()
    path = directory / name / "migration.sql"
    path.write_text(script)
    return path


async def tables(database: Database) -> set[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


async def execute(database: Database, statement: str, *arguments: object) -> None:
    async with database.connection() as connection:
        await connection.execute(statement, *arguments)


async def test_empty_database_gets_every_migration_in_order(empty_database: Database) -> None:
    assert await pending(empty_database) == ALL
    assert await migrate(empty_database) == ALL
    assert await pending(empty_database) == ()
    async with empty_database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM _prisma_migrations ORDER BY started_at")
    assert [row["migration_name"] for row in rows] == list(ALL)
    for row in rows:
        script = (MIGRATIONS / row["migration_name"] / "migration.sql").read_bytes()
        assert row["checksum"] == hashlib.sha256(script).hexdigest()
        assert row["started_at"] < row["finished_at"]
        assert (len(row["id"]), row["applied_steps_count"], row["logs"], row["rolled_back_at"]) == (36, 1, None, None)


async def test_history_table_is_as_prisma_migrate_makes_it(empty_database: Database, directory: Path) -> None:
    await migrate(empty_database, directory)
    async with empty_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull, pg_get_expr(adbin, adrelid) AS value"
            "  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE attrelid = '_prisma_migrations'::regclass AND attnum > 0 ORDER BY attnum"
        )
    assert [tuple(row) for row in rows] == [
        ("id", "character varying(36)", True, None),
        ("checksum", "character varying(64)", True, None),
        ("finished_at", "timestamp with time zone", False, None),
        ("migration_name", "character varying(255)", True, None),
        ("logs", "text", False, None),
        ("rolled_back_at", "timestamp with time zone", False, None),
        ("started_at", "timestamp with time zone", True, "now()"),
        ("applied_steps_count", "integer", True, "0"),
    ]


async def test_second_run_does_nothing_and_takes_no_lock(empty_database: Database, directory: Path) -> None:
    await migrate(empty_database, directory)
    async with empty_database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock(72707369)")
        try:
            assert await asyncio.wait_for(migrate(empty_database, directory), 5) == ()
        finally:
            await connection.execute("SELECT pg_advisory_unlock(72707369)")


async def test_new_migration_is_applied_alone(empty_database: Database, directory: Path) -> None:
    await migrate(empty_database, directory)
    add_migration(directory, "0003_third", "CREATE TABLE third (id int)")
    assert await pending(empty_database, directory) == ("0003_third",)
    assert await migrate(empty_database, directory) == ("0003_third",)


async def test_edited_migration_is_refused_by_name_and_nothing_is_applied(
    empty_database: Database, directory: Path
) -> None:
    await migrate(empty_database, directory)
    (directory / "0001_first" / "migration.sql").write_text("CREATE TABLE first (id bigint);")
    add_migration(directory, "0003_third", "CREATE TABLE third (id int)")
    with pytest.raises(MigrationError, match="0001_first was edited"):
        await migrate(empty_database, directory)
    with pytest.raises(MigrationError, match="0001_first was edited"):
        await pending(empty_database, directory)
    assert "third" not in await tables(empty_database)


async def test_other_line_endings_are_no_edit(empty_database: Database, directory: Path) -> None:
    await migrate(empty_database, directory)
    path = directory / "0002_second" / "migration.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate(empty_database, directory) == ()


async def test_applied_migration_that_is_missing_is_refused_by_name(empty_database: Database, directory: Path) -> None:
    await migrate(empty_database, directory)
    shutil.rmtree(directory / "0002_second")
    add_migration(directory, "0003_third", "CREATE TABLE third (id int)")
    with pytest.raises(MigrationError, match="0002_second is applied to the database but missing here"):
        await migrate(empty_database, directory)
    assert "third" not in await tables(empty_database)


async def test_folder_without_a_script_is_refused_by_name(empty_database: Database, directory: Path) -> None:
    (directory / "0003_empty").mkdir()
    with pytest.raises(MigrationError, match=r"0003_empty has no migration\.sql"):
        await migrate(empty_database, directory)
    assert await tables(empty_database) == set()


async def test_directory_that_is_not_there_is_refused(empty_database: Database, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no migrations directory"):
        await migrate(empty_database, tmp_path / "nowhere")


async def test_failing_migration_leaves_nothing_and_is_tried_again(empty_database: Database, directory: Path) -> None:
    broken = add_migration(directory, "0003_broken", "CREATE TABLE third (id int);\nSELECT 1 / 0;")
    with pytest.raises(MigrationError, match="0003_broken failed and was rolled back: division by zero"):
        await migrate(empty_database, directory)
    assert await tables(empty_database) == {"_prisma_migrations", "first", "second"}
    broken.write_text("CREATE TABLE third (id int);")
    assert await migrate(empty_database, directory) == ("0003_broken",)


async def test_migration_that_failed_under_prisma_is_refused_until_it_is_resolved(
    empty_database: Database, directory: Path
) -> None:
    await migrate(empty_database, directory)
    script = add_migration(directory, "0003_third", "CREATE TABLE third (id int)").read_bytes()
    await execute(
        empty_database,
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, logs) VALUES ('x', $1, '0003_third', 'ERROR')",
        hashlib.sha256(script).hexdigest(),
    )
    with pytest.raises(MigrationError, match="0003_third failed before"):
        await migrate(empty_database, directory)
    # What `prisma migrate resolve --rolled-back` does:
    await execute(empty_database, "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id = 'x'")
    assert await migrate(empty_database, directory) == ("0003_third",)
    assert await migrate(empty_database, directory) == ()


async def test_waits_while_prisma_migrate_holds_the_lock(empty_database: Database, directory: Path) -> None:
    holder = await asyncpg.connect(empty_database.dsn)
    await holder.execute("SELECT pg_advisory_lock(72707369)")
    migrating = asyncio.create_task(migrate(empty_database, directory))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 72707369"
    waiting += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    while not await holder.fetchval(waiting):
        assert not migrating.done()
    assert await tables(empty_database) == set()
    await holder.close()
    assert await migrating == ("0001_first", "0002_second")


async def test_six_processes_at_once_apply_each_migration_once(empty_database: Database) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE_IN_A_PROCESS, empty_database.dsn,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(6)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 6, outputs
    applied = [out.decode().splitlines()[-1] for out, _ in outputs]
    assert sorted(applied) == [""] * 5 + [" ".join(ALL)]
    async with empty_database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM _prisma_migrations") == len(ALL)

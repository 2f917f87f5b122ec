"""Applies prisma/migrations/ in order, in Prisma Migrate's own layout, table and lock: either tool can go on."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

from app.db.pool import Connection, Database
from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable, MigrationError

MIGRATIONS = Path(__file__).resolve().parents[2] / "prisma" / "migrations"

# The advisory lock that `prisma migrate` takes: neither tool starts while the other is at work.
_LOCK_ID = 72707369
_LOCK_SECONDS = 120.0
_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)
"""
_SELECT_RECORDED = """
SELECT migration_name, checksum, finished_at IS NOT NULL AS is_finished
  FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at, migration_name
"""
_INSERT_APPLIED = """
INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
VALUES ($1, $2, $3, now(), clock_timestamp(), 1)
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    script: bytes

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.script).hexdigest()

    def has_checksum(self, checksum: str) -> bool:
        """As Prisma compares: the same script with the other system's line endings is the same script."""
        unix = self.script.replace(b"\r\n", b"\n")
        return any(
            hashlib.sha256(script).hexdigest() == checksum
            for script in (self.script, unix, unix.replace(b"\n", b"\r\n"))
        )


def load_migrations(directory: Path = MIGRATIONS) -> tuple[Migration, ...]:
    if not directory.is_dir():
        raise MigrationError(f"there is no migrations directory at {directory}")
    scripts = sorted(folder / "migration.sql" for folder in directory.iterdir() if folder.is_dir())
    for script in scripts:
        if not script.is_file():
            raise MigrationError(
                f"migration {script.parent.name} has no migration.sql: restore it, or delete its folder"
            )
    return tuple(Migration(script.parent.name, script.read_bytes()) for script in scripts)


async def pending(database: Database, directory: Path = MIGRATIONS) -> tuple[str, ...]:
    """The names of the migrations that `migrate` would apply, in order. Raises MigrationError where it would."""
    async with database.connection() as connection:
        recorded = await _recorded(connection)
    return tuple(migration.name for migration in _unapplied(recorded, load_migrations(directory)))


async def migrate(database: Database, directory: Path = MIGRATIONS) -> tuple[str, ...]:
    """Brings the schema up to date and returns what it applied, in order; nothing where it is up to date already.

    Any number of processes may call it at once: one applies, the others wait for it. Each migration is a transaction
    of its own, so that one which fails leaves nothing behind and is tried again at the next call. Raises
    MigrationError, which names the migration, where one fails, failed under `prisma migrate`, was edited after it was
    applied, or is applied but not in `directory`.
    """
    migrations = load_migrations(directory)
    async with database.connection() as connection:
        recorded = await _recorded(connection)
    # Without the lock: a start with nothing to do is quick. What is unfinished may be under way elsewhere, though.
    if all(is_finished for _, _, is_finished in recorded) and not _unapplied(recorded, migrations):
        return ()
    async with _locked_connection(database.dsn) as connection:
        await connection.execute(_CREATE_TABLE)
        applied = []
        for migration in _unapplied(await _recorded(connection), migrations):
            await _apply(connection, migration)
            applied.append(migration.name)
    return tuple(applied)


@asynccontextmanager
async def _locked_connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection of its own, whose end releases the lock whatever happens."""
    try:
        connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "tollgate migrate"})
    except DATABASE_TROUBLE as error:
        raise DatabaseUnavailable(f"the database does not answer: {error}") from None
    try:
        await _lock(connection)
        yield connection
    except DATABASE_TROUBLE as error:
        raise MigrationError(f"the schema cannot be migrated: {error}") from error
    finally:
        await connection.close(timeout=5)


async def _lock(connection: Connection) -> None:
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_ID, timeout=_LOCK_SECONDS)
    except TimeoutError:
        raise MigrationError(f"another process has been migrating for {_LOCK_SECONDS:.0f} s: try again later") from None


async def _recorded(connection: Connection) -> list[tuple[str, str, bool]]:
    if await connection.fetchval("SELECT to_regclass('_prisma_migrations')") is None:
        return []
    return [tuple(record) for record in await connection.fetch(_SELECT_RECORDED)]


def _unapplied(recorded: Sequence[tuple[str, str, bool]], migrations: Sequence[Migration]) -> list[Migration]:
    by_name = {migration.name: migration for migration in migrations}
    applied = {name for name, _, _ in recorded}
    for name, checksum, is_finished in recorded:
        if not is_finished:
            raise MigrationError(
                f"migration {name} failed before: repair the database, then mark it with `prisma migrate resolve`"
            )
        if name not in by_name:
            raise MigrationError(
                f"migration {name} is applied to the database but missing here: this release is older than the database"
            )
        if not by_name[name].has_checksum(checksum):
            raise MigrationError(f"migration {name} was edited after it was applied: restore it, and add a new one")
    return [migration for migration in migrations if migration.name not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.script.decode())
            await connection.execute(_INSERT_APPLIED, str(uuid.uuid4()), migration.checksum, migration.name)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"migration {migration.name} failed and was rolled back: {error}") from error
    _log.info("migration_applied", migration=migration.name)

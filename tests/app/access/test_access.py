"""Tokens on a real database: made, accepted, revoked in every process."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from app.access.authenticator import Authenticator
from app.access.records import AccessRole, Identity
from app.access.service import AccessService
from app.access.tokens import hash_token
from app.db.listen import Listener
from app.db.pool import Database
from app.errors import ConfigurationError, DatabaseUnavailable, NotFound, Unauthenticated, ValidationError


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def authenticating(database: Database, dsn: str, clock: Clock | None = None) -> AsyncIterator[Authenticator]:
    authenticator = Authenticator(database, clock=clock or Clock())
    listener = Listener(dsn)
    authenticator.attach(listener)
    await listener.start()
    try:
        yield authenticator
    finally:
        await listener.stop()
        await authenticator.stop()


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def accepted(authenticator: Authenticator, token: str) -> bool:
    try:
        await authenticator.authenticate(token)
    except Unauthenticated:
        return False
    return True


async def until(authenticator: Authenticator, token: str, expected: bool) -> None:
    """Waits for the notice that another process's change sends."""
    changed = asyncio.Event()
    unsubscribe = authenticator.on_change(changed.set)
    async with asyncio.timeout(10):
        while await accepted(authenticator, token) is not expected:
            await changed.wait()
            changed.clear()
    unsubscribe()


async def test_a_token_is_stored_only_as_its_hash(database: Database) -> None:
    created = await AccessService(database).create("ci", AccessRole.OPERATOR)
    async with database.connection() as connection:
        stored = str(dict(await connection.fetchrow("SELECT * FROM access_tokens") or {}))
    assert created.token not in stored
    assert hash_token(created.token) in stored
    assert created.token not in repr(created)
    assert created.token.startswith(created.row.token_prefix)


async def test_a_token_says_whose_it_is_from_memory(database: Database, database_dsn: str) -> None:
    async with authenticating(database, database_dsn) as authenticator:
        service = AccessService(database, authenticator)
        created = await service.create("ci", AccessRole.OPERATOR)
        await until(authenticator, created.token, expected=True)
        identity = authenticator.authenticate_from_memory(created.token)
        assert identity == Identity(created.row.id, created.row.workspace_id, AccessRole.OPERATOR, "ci")  # type: ignore[arg-type] # ids of the row are plain strings


@pytest.mark.parametrize("token", ["", "tg_", "tg_" + "x" * 43, "\udcff", "x" * 100_000])
async def test_anything_else_is_unauthenticated_and_not_repeated(
    database: Database, database_dsn: str, token: str
) -> None:
    async with authenticating(database, database_dsn) as authenticator:
        with pytest.raises(Unauthenticated) as caught:
            authenticator.authenticate_from_memory(token)
        assert not token or token not in str(caught.value) or token == "tg_"
    with pytest.raises(Unauthenticated):
        await Authenticator(database).authenticate(token)


async def test_the_own_process_refuses_a_revoked_token_at_once(database: Database, database_dsn: str) -> None:
    async with authenticating(database, database_dsn) as authenticator:
        service = AccessService(database, authenticator)
        created = await service.create("ci", AccessRole.READER)
        assert await accepted(authenticator, created.token)
        await service.revoke(created.row.id)
        assert not await accepted(authenticator, created.token)
        with pytest.raises(Unauthenticated):
            authenticator.authenticate_from_memory(created.token)


async def test_another_process_refuses_a_revoked_token(database: Database, database_dsn: str) -> None:
    async with authenticating(database, database_dsn) as authenticator:
        elsewhere = AccessService(database)
        created = await elsewhere.create("ci", AccessRole.READER)
        await until(authenticator, created.token, expected=True)
        await elsewhere.revoke(created.row.id)
        await until(authenticator, created.token, expected=False)


async def test_a_token_expires_at_its_instant(database: Database, database_dsn: str) -> None:
    clock = Clock()
    async with authenticating(database, database_dsn, clock) as authenticator:
        service = AccessService(database, authenticator, clock=clock)
        expires_at = clock.now + timedelta(hours=1)
        created = await service.create("short", AccessRole.READER, expires_at=expires_at)
        clock.now = expires_at - timedelta(microseconds=1)
        assert await accepted(authenticator, created.token)
        clock.now = expires_at
        assert not await accepted(authenticator, created.token)
        unattached = Authenticator(database, clock=clock)
        assert not await accepted(unattached, created.token)


async def test_without_a_listener_the_database_is_asked_each_time(database: Database) -> None:
    authenticator = Authenticator(database)
    service = AccessService(database)
    created = await service.create("ci", AccessRole.READER)
    assert authenticator.authenticate_from_memory(created.token) is None
    assert await accepted(authenticator, created.token)
    await service.revoke(created.row.id)
    assert not await accepted(authenticator, created.token)


async def test_a_lost_connection_is_not_trusted(database: Database, database_dsn: str) -> None:
    authenticator = Authenticator(database)
    listener = Listener(database_dsn)
    authenticator.attach(listener)
    await listener.start()
    service = AccessService(database)
    created = await service.create("ci", AccessRole.READER)
    await until(authenticator, created.token, expected=True)
    await listener.stop()
    await service.revoke(created.row.id)
    assert authenticator.authenticate_from_memory(created.token) is None
    assert not await accepted(authenticator, created.token)
    await authenticator.stop()


async def test_a_reconnect_reads_what_was_missed(database: Database, database_dsn: str) -> None:
    async with authenticating(database, database_dsn) as authenticator:
        service = AccessService(database)
        created = await service.create("ci", AccessRole.READER)
        await until(authenticator, created.token, expected=True)
        async with database.connection() as connection:
            await connection.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'tollgate listener' AND datname = current_database()"""
            )
        await service.revoke(created.row.id)
        await until(authenticator, created.token, expected=False)
        later = await service.create("later", AccessRole.READER)
        await until(authenticator, later.token, expected=True)
        assert not await accepted(authenticator, created.token)


async def test_where_the_database_is_gone_nothing_is_accepted(database_dsn: str) -> None:
    database = await Database.connect(database_dsn, size=2)
    created = await AccessService(database).create("ci", AccessRole.ADMIN)
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await Authenticator(database).authenticate(created.token)


async def test_tokens_are_listed_with_the_revoked_and_revoked_once(database: Database) -> None:
    service = AccessService(database)
    first = (await service.create("first", AccessRole.READER)).row
    second = (await service.create("second", AccessRole.ADMIN)).row
    revoked = await service.revoke(first.id)
    assert revoked.revoked_at is not None
    assert await service.revoke(first.id) == revoked
    assert await service.list() == (revoked, second)
    with pytest.raises(NotFound):
        await service.revoke("none")
    with pytest.raises(NotFound):
        await service.revoke("\x00")


async def test_a_token_out_of_bounds_is_refused(database: Database) -> None:
    service = AccessService(database)
    for name in ("", " ", "x" * 101, "a\x00b"):
        with pytest.raises(ValidationError, match="name must be"):
            await service.create(name, AccessRole.READER)
    west = timezone(timedelta(hours=-12))
    for expires_at in (datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1), datetime.max.replace(tzinfo=west)):  # noqa: DTZ001 - what is refused
        with pytest.raises(ValidationError, match="expiresAt"):
            await service.create("late", AccessRole.READER, expires_at=expires_at)
    with pytest.raises(NotFound):
        await service.create("ci", AccessRole.READER, workspace_id="nowhere")
    assert await service.list() == ()


async def test_a_preset_admin_token_is_accepted_and_made_once(database: Database, tmp_path: Path) -> None:
    preset = SecretStr("preset-admin-token")
    service = AccessService(database)
    for _ in range(2):
        answer = await service.ensure_admin(preset, tmp_path)
        assert (answer.made, answer.token, answer.path) == (False, None, None)
    assert len(await service.list()) == 1
    assert (await Authenticator(database).authenticate("preset-admin-token")).role is AccessRole.ADMIN
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("preset", ["short", "with a space in it", "é" * 20, "x" * 513])
async def test_a_preset_that_cannot_be_a_bearer_token_is_refused(
    database: Database, tmp_path: Path, preset: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await AccessService(database).ensure_admin(SecretStr(preset), tmp_path)
    assert preset not in str(caught.value)


async def test_a_revoked_preset_stays_revoked(database: Database, tmp_path: Path) -> None:
    service = AccessService(database)
    await service.ensure_admin(SecretStr("preset-admin-token"), tmp_path)
    await service.revoke((await service.list())[0].id)
    with pytest.raises(ConfigurationError, match="revoked"):
        await service.ensure_admin(SecretStr("preset-admin-token"), tmp_path)


async def test_without_a_preset_one_is_made_and_kept_for_its_owner_only(database: Database, tmp_path: Path) -> None:
    service = AccessService(database)
    made = await service.ensure_admin(None, tmp_path / "data")
    assert made.made
    assert made.token is not None
    assert made.path is not None
    assert made.token not in repr(made)
    assert made.path.read_text().strip() == made.token
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert names_in(made.path.parent) == ["admin-token"]
    assert (await Authenticator(database).authenticate(made.token)).role is AccessRole.ADMIN

    again = await service.ensure_admin(None, tmp_path / "data")
    assert (again.made, again.token, again.path) == (False, None, made.path)
    elsewhere = await service.ensure_admin(None, tmp_path / "other machine")
    assert (elsewhere.made, elsewhere.path) == (False, None)


async def test_processes_that_start_together_make_one_admin(
    database: Database, database_dsn: str, tmp_path: Path
) -> None:
    others = [await Database.connect(database_dsn, size=2) for _ in range(3)]
    services = [AccessService(each) for each in (database, *others)]
    answers = await asyncio.gather(*(service.ensure_admin(None, tmp_path) for service in services * 3))
    for other in others:
        await other.close()
    assert [answer.made for answer in answers].count(True) == 1
    assert all(answer.path == tmp_path / "admin-token" for answer in answers)
    assert len(await services[0].list()) == 1


async def test_a_kept_token_outlives_its_database(database: Database, tmp_path: Path) -> None:
    service = AccessService(database)
    made = await service.ensure_admin(None, tmp_path)
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM access_tokens")
    again = await service.ensure_admin(None, tmp_path)
    assert (again.made, again.path) == (False, made.path)
    assert made.token is not None
    assert (await Authenticator(database).authenticate(made.token)).role is AccessRole.ADMIN


async def test_where_every_admin_is_revoked_a_new_one_is_made(database: Database, tmp_path: Path) -> None:
    service = AccessService(database)
    first = await service.ensure_admin(None, tmp_path)
    await service.revoke((await service.list())[0].id)
    second = await service.ensure_admin(None, tmp_path)
    assert second.made
    assert second.token != first.token


async def test_an_unwritable_directory_is_one_clear_error_and_makes_no_token(
    database: Database, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    service = AccessService(database)
    with pytest.raises(ConfigurationError, match="admin token"):
        await service.ensure_admin(None, blocked)
    assert await service.list() == ()


async def test_the_database_refuses_two_rows_of_one_token(database: Database) -> None:
    created = await AccessService(database).create("ci", AccessRole.READER)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as connection:
            await connection.execute(
                """INSERT INTO access_tokens (id, workspace_id, name, role, token_hash, token_prefix)
                   VALUES ('x', 'default', 'x', 'READER', $1, 'x')""",
                created.row.token_hash,
            )

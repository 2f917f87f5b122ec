"""Makes, lists and revokes access tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from app.access import admin_file, repository
from app.access.authenticator import Authenticator
from app.access.records import DEFAULT_WORKSPACE, AccessRole, AccessToken, CreatedToken
from app.access.tokens import MAX_LENGTH, generate_token, hash_token, token_prefix
from app.db.ids import new_id
from app.db.pool import Connection, Database
from app.errors import ConfigurationError, NotFound, ValidationError

MAX_NAME = 100
_MIN_PRESET = 8


@dataclass(frozen=True, slots=True)
class AdminToken:
    """How the first admin token is known: `token` only where it was made just now, to be printed once."""

    made: bool
    path: Path | None
    """The file that keeps it, if it is this data directory's."""
    token: str | None = field(default=None, repr=False)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AccessService:
    """With an `authenticator`, this process knows of each change when the call returns."""

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator | None = None,
        *,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._clock = clock

    async def create(
        self,
        name: str,
        role: AccessRole,
        *,
        expires_at: datetime | None = None,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> CreatedToken:
        """Answers the token itself, this once. Raises ValidationError and NotFound."""
        name = _check_name(name)
        expires_at = None if expires_at is None else _check_expiry(expires_at, self._clock())
        token = generate_token()
        try:
            async with self._changing() as connection:
                row = await _insert(connection, token, name, role, workspace_id, expires_at)
        except asyncpg.ForeignKeyViolationError:
            raise NotFound("Workspace", workspace_id) from None
        return CreatedToken(row, token)

    async def list(self, *, workspace_id: str = DEFAULT_WORKSPACE) -> tuple[AccessToken, ...]:
        """Oldest first, with the expired and the revoked."""
        async with self._database.connection() as connection:
            return await repository.list_tokens(connection, workspace_id)

    async def revoke(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> AccessToken:
        """From now on no process accepts it. Revoking once more changes nothing. Raises NotFound."""
        async with self._changing() as connection:
            # PostgreSQL refuses some characters (U+0000) in any text; no id has them.
            row = await repository.revoke(connection, id, workspace_id) if id.isprintable() else None
            if row is None:
                raise NotFound("AccessToken", id, path=("id",))
        return row

    async def ensure_admin(self, preset: SecretStr | None, data_dir: Path) -> AdminToken:
        """Sees to it that an admin token exists; processes that start together make one between them.

        `preset` is TOLLGATE_ADMIN_TOKEN. Without it, one is made unless a valid one exists, and kept in
        `data_dir`/admin-token. Raises ConfigurationError.
        """
        async with self._changing() as connection:
            if preset is not None:
                return await _ensure_preset(connection, preset.get_secret_value())
            return await self._ensure_kept(connection, data_dir)

    async def _ensure_kept(self, connection: Connection, data_dir: Path) -> AdminToken:
        path = admin_file.path_in(data_dir)
        kept = admin_file.read(path)
        row = None if kept is None else await repository.find_by_hash(connection, hash_token(kept))
        if await repository.has_valid_admin(connection, DEFAULT_WORKSPACE, self._clock()):
            is_valid = row is not None and row.revoked_at is None
            return AdminToken(made=False, path=path if is_valid else None)
        if kept is not None and row is None:
            # The directory outlived its database: whoever holds its token goes on using it.
            await _insert(connection, kept, "admin", AccessRole.ADMIN, DEFAULT_WORKSPACE, None)
            return AdminToken(made=False, path=path)
        token = generate_token()
        await _insert(connection, token, "admin", AccessRole.ADMIN, DEFAULT_WORKSPACE, None)
        admin_file.write(path, token)
        return AdminToken(made=True, path=path, token=token)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            await repository.lock_access(connection)
            yield connection
            revision = await repository.read_revision(connection)
        if self._authenticator is not None:
            await self._authenticator.refresh(revision)


async def _ensure_preset(connection: Connection, token: str) -> AdminToken:
    if not _MIN_PRESET <= len(token) <= MAX_LENGTH or not all("!" <= character <= "~" for character in token):
        raise ConfigurationError(
            f"TOLLGATE_ADMIN_TOKEN must be {_MIN_PRESET} to {MAX_LENGTH} printable ASCII characters without spaces"
        )
    row = await repository.find_by_hash(connection, hash_token(token))
    if row is None:
        await _insert(connection, token, "TOLLGATE_ADMIN_TOKEN", AccessRole.ADMIN, DEFAULT_WORKSPACE, None)
    elif row.revoked_at is not None or row.role is not AccessRole.ADMIN:
        raise ConfigurationError("TOLLGATE_ADMIN_TOKEN is a token that was revoked or is no admin's: set another one")
    return AdminToken(made=False, path=None)


async def _insert(
    connection: Connection,
    token: str,
    name: str,
    role: AccessRole,
    workspace_id: str,
    expires_at: datetime | None,
) -> AccessToken:
    return await repository.insert(
        connection,
        id=new_id(),
        workspace_id=workspace_id,
        name=name,
        role=role,
        token_hash=hash_token(token),
        token_prefix=token_prefix(token),
        expires_at=expires_at,
    )


def _check_expiry(expires_at: datetime, now: datetime) -> datetime:
    bound = "a time to come, with its time zone"
    try:
        instant = expires_at.astimezone(UTC)
    except OverflowError:
        raise ValidationError("expiresAt", expires_at.isoformat(), bound) from None
    if expires_at.tzinfo is None or instant <= now:
        raise ValidationError("expiresAt", expires_at.isoformat(), bound)
    return instant


def _check_name(name: str) -> str:
    stripped = name.strip()
    if not 1 <= len(stripped) <= MAX_NAME or not stripped.isprintable():
        raise ValidationError("name", name, f"1 to {MAX_NAME} printable characters")
    return stripped

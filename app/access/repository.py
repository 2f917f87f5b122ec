"""All SQL of the access tokens."""

from __future__ import annotations

from datetime import datetime

from app.access.records import AccessRole, AccessToken
from app.db.pool import Connection
from app.db.rows import ACCESS_TOKEN_COLUMNS


async def lock_access(connection: Connection) -> None:
    """Takes the lock that every change of the tokens takes anyway, first: changes then queue up."""
    await connection.execute("SELECT 1 FROM revisions WHERE subject = 'access' FOR UPDATE")


async def read_revision(connection: Connection) -> int:
    number: int = await connection.fetchval("SELECT number FROM revisions WHERE subject = 'access'")
    return number


async def list_tokens(connection: Connection, workspace_id: str) -> tuple[AccessToken, ...]:
    rows = await connection.fetch(
        f"SELECT {ACCESS_TOKEN_COLUMNS} FROM access_tokens WHERE workspace_id = $1 ORDER BY created_at, id",
        workspace_id,
    )
    return tuple(map(AccessToken.from_record, rows))


async def unrevoked_tokens(connection: Connection) -> tuple[AccessToken, ...]:
    """Of every workspace; some may have expired."""
    rows = await connection.fetch(f"SELECT {ACCESS_TOKEN_COLUMNS} FROM access_tokens WHERE revoked_at IS NULL")
    return tuple(map(AccessToken.from_record, rows))


async def find_by_hash(connection: Connection, token_hash: str) -> AccessToken | None:
    row = await connection.fetchrow(
        f"SELECT {ACCESS_TOKEN_COLUMNS} FROM access_tokens WHERE token_hash = $1",
        token_hash,
    )
    return None if row is None else AccessToken.from_record(row)


async def has_valid_admin(connection: Connection, workspace_id: str, now: datetime) -> bool:
    found: bool = await connection.fetchval(
        """SELECT EXISTS (SELECT FROM access_tokens WHERE workspace_id = $1 AND role = $2
                            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3))""",
        workspace_id,
        AccessRole.ADMIN,
        now,
    )
    return found


async def insert(
    connection: Connection,
    *,
    id: str,
    workspace_id: str,
    name: str,
    role: AccessRole,
    token_hash: str,
    token_prefix: str,
    expires_at: datetime | None = None,
) -> AccessToken:
    row = await connection.fetchrow(
        f"""INSERT INTO access_tokens (id, workspace_id, name, role, token_hash, token_prefix, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {ACCESS_TOKEN_COLUMNS}""",
        id,
        workspace_id,
        name,
        role,
        token_hash,
        token_prefix,
        expires_at,
    )
    assert row is not None
    return AccessToken.from_record(row)


async def revoke(connection: Connection, id: str, workspace_id: str) -> AccessToken | None:
    """The first revocation's time stays. None where there is no such token."""
    row = await connection.fetchrow(
        f"""UPDATE access_tokens SET revoked_at = coalesce(revoked_at, now())
             WHERE id = $1 AND workspace_id = $2 RETURNING {ACCESS_TOKEN_COLUMNS}""",
        id,
        workspace_id,
    )
    return None if row is None else AccessToken.from_record(row)

"""Connections and transactions: the one way to reach the database at run time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

MINIMUM_SERVER_VERSION = 14
_PRISMA_PARAMETERS = {
    "schema",
    "connection_limit",
    "pool_timeout",
    "pgbouncer",
    "socket_timeout",
    "statement_cache_size",
}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Database:
    """A pool of connections to one PostgreSQL.

    Every timestamp comes back as an aware datetime in UTC, every jsonb as parsed JSON, every numeric as Decimal.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> None:
        self._pool = pool
        self.dsn = dsn

    @classmethod
    async def connect(cls, dsn: str, *, size: int = 8, application_name: str = "tollgate") -> Self:
        """Opens the pool. Raises DatabaseUnavailable where no server of a supported version answers."""
        try:
            dsn = without_prisma_parameters(dsn)
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=size,
                init=prepare_connection,
                reset=_keep_session,
                command_timeout=60,
                timeout=10,
                server_settings={"timezone": "UTC", "application_name": application_name},
            )
        except (ValueError, asyncpg.exceptions.ClientConfigurationError):
            # Not the error's own text: it may quote a part of the URL, the password among it.
            raise DatabaseUnavailable(
                "DATABASE_URL is not a usable PostgreSQL URL: postgresql://user:password@host:5432/database"
            ) from None
        except DATABASE_TROUBLE as error:
            raise DatabaseUnavailable(f"the database does not answer: {_reason(error)}") from None
        async with pool.acquire() as connection:
            version = connection.get_server_version()
        if version.major < MINIMUM_SERVER_VERSION:
            await pool.close()
            raise DatabaseUnavailable(
                f"the database is PostgreSQL {version.major}; Tollgate needs {MINIMUM_SERVER_VERSION} or newer"
            )
        return cls(pool, dsn)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: each statement commits by itself."""
        async with self._pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed when the block ends and rolled back when it raises."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        await self._pool.close()


def without_prisma_parameters(dsn: str) -> str:
    """Prisma's own URL parameters ("?schema=public") are not PostgreSQL's, which would refuse them."""
    parts = urlsplit(dsn)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in _PRISMA_PARAMETERS]
    return dsn if not parts.query else urlunsplit(parts._replace(query=urlencode(kept)))


async def prepare_connection(connection: Connection) -> None:
    """Sets the type codecs on a fresh connection."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )
    await connection.set_type_codec(
        "timestamp", schema="pg_catalog", format="tuple", encoder=_encode_timestamp, decoder=_decode_timestamp
    )


async def _keep_session(connection: Connection) -> None:
    """Replaces asyncpg's reset at each release (half of the throughput): no statement here leaves session state."""


def _encode_jsonb(value: Any) -> bytes:
    return b"\x01" + (value if isinstance(value, bytes) else orjson.dumps(value))


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


def _encode_timestamp(value: datetime) -> tuple[int]:
    return ((value - _EPOCH) // _MICROSECOND,)


def _decode_timestamp(value: tuple[int]) -> datetime:
    return _EPOCH + timedelta(microseconds=value[0])


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]

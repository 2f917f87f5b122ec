"""What goes into the database comes out the same, and a server that cannot serve is refused in one sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db.pool import Database
from app.errors import DatabaseUnavailable

# What PostgreSQL's jsonb refuses is no business of the codec: NUL in a string, lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | TEXTS
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10)
# numeric(20,10) holds ten digits before the point and ten after it.
PRICES = st.decimals(min_value=0, max_value=Decimal("9999999999"), places=10)
# Years that are years in every time zone.
MOMENTS = st.datetimes(timezones=st.timezones()).filter(lambda moment: 1 < moment.year < 9999)


async def fetch(database: Database, statement: str, *arguments: Any) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(statement, *arguments)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS)
async def test_json_comes_back_equal(database: Database, document: Any) -> None:
    assert await fetch(database, "SELECT $1::jsonb", document) == document


async def test_json_null_is_not_the_missing_value(database: Database) -> None:
    assert await fetch(database, "SELECT $1::jsonb IS NULL", None) is True
    assert await fetch(database, "SELECT 'null'::jsonb IS NULL") is False


async def test_json_that_is_bytes_already_is_sent_as_it_is(database: Database) -> None:
    assert await fetch(database, "SELECT $1::jsonb", b'{"a": [1, 2]}') == {"a": [1, 2]}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=MOMENTS)
async def test_moment_comes_back_aware_in_utc_from_either_column_type(database: Database, moment: datetime) -> None:
    for column_type in ("timestamp", "timestamptz"):
        back = await fetch(database, f"SELECT $1::{column_type}", moment)
        assert back == moment.astimezone(UTC)
        assert back.utcoffset() == timedelta(0)


async def test_naive_moment_is_refused(database: Database) -> None:
    with pytest.raises((TypeError, asyncpg.DataError), match="naive"):
        await fetch(database, "SELECT $1::timestamp", datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


async def test_now_is_stored_in_utc_whatever_the_servers_time_zone(database: Database) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO workspaces (id, name, updated_at) VALUES ('w', 'w', $1)",
            datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5))),
        )
        row = await connection.fetchrow("SELECT created_at, updated_at FROM workspaces WHERE id = 'w'")
    assert row is not None
    assert before <= row["created_at"] <= datetime.now(UTC)
    assert row["updated_at"] == datetime(2026, 7, 1, 7, tzinfo=UTC)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(price=PRICES)
async def test_price_comes_back_exactly(database: Database, price: Decimal) -> None:
    back = await fetch(database, "SELECT $1::numeric(20,10)", price)
    assert isinstance(back, Decimal)
    assert back == price


async def test_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="midway"):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO workspaces (id, name, updated_at) VALUES ('w', 'w', now())")
            raise RuntimeError("midway")
    assert await fetch(database, "SELECT count(*) FROM workspaces WHERE id = 'w'") == 0


async def test_connection_killed_by_the_server_is_replaced(database: Database, database_dsn: str) -> None:
    pid = await fetch(database, "SELECT pg_backend_pid()")
    killer = await asyncpg.connect(database_dsn)
    # A positive wait: terminated means gone when this returns.
    assert await killer.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await killer.close()
    try:
        other = await fetch(database, "SELECT pg_backend_pid()")
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError):
        other = await fetch(database, "SELECT pg_backend_pid()")
    assert other != pid


@pytest.mark.parametrize(
    ("dsn", "sentence"),
    [
        ("postgresql://someone:s3cret@127.0.0.1:1/nothing", "the database does not answer: "),
        ("postgresql://someone:s3cret@127.0.0.1:notaport/x", "DATABASE_URL is not a usable PostgreSQL URL: "),
        ("s3cret nonsense", "DATABASE_URL is not a usable PostgreSQL URL: "),
    ],
)
async def test_server_that_does_not_answer_is_one_clear_sentence_without_the_password(dsn: str, sentence: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await Database.connect(dsn)
    assert caught.value.message.startswith(sentence)
    assert "\n" not in caught.value.message
    assert "s3cret" not in str(caught.value)

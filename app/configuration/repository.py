"""All SQL of configuration as code that the catalog does not have: the locks, what is in use, and writing in bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.catalog.repository import lock_catalog
from app.configuration.records import Referenced
from app.db.pool import Connection
from app.db.rows import TABLES

Row = Mapping[str, Any]

_LOCK_TIMEOUT_MILLISECONDS: Final = 30_000
_PROVIDERS: Final = "llm_providers"
_MODELS: Final = "llm_models"


async def read_clock(connection: Connection) -> datetime:
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def lock(connection: Connection) -> None:
    """Holds off the seed and every other change of the catalog until the transaction ends; readers and calls go on."""
    await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MILLISECONDS}")
    await lock_catalog(connection)


async def lock_rows(connection: Connection, workspace_id: str) -> None:
    """Waits for submissions and claims under way and holds off new ones, so that what is in use stays known."""
    for table in (_PROVIDERS, _MODELS):
        await connection.execute(f"SELECT 1 FROM {table} WHERE workspace_id = $1 ORDER BY id FOR UPDATE", workspace_id)


async def find_referenced(connection: Connection, workspace_id: str) -> Referenced:
    """Models that requests of any state refer to; providers that have unfinished ones."""
    models = await connection.fetch(
        """SELECT m.id FROM llm_models m
            WHERE m.workspace_id = $1 AND EXISTS (SELECT FROM model_requests r WHERE r.model_id = m.id)""",
        workspace_id,
    )
    providers = await connection.fetch(
        """SELECT p.id FROM llm_providers p
            WHERE p.workspace_id = $1 AND EXISTS (
                  SELECT FROM model_requests r WHERE r.provider_id = p.id AND r.status IN ('PENDING', 'PROCESSING'))""",
        workspace_id,
    )
    return Referenced(frozenset(row["id"] for row in providers), frozenset(row["id"] for row in models))


async def insert_providers(connection: Connection, rows: Sequence[Row]) -> None:
    await _insert(connection, _PROVIDERS, rows)


async def update_providers(connection: Connection, rows: Sequence[Row]) -> None:
    await _update(connection, _PROVIDERS, rows)


async def delete_providers(connection: Connection, ids: Sequence[str]) -> None:
    await _delete(connection, _PROVIDERS, ids)


async def insert_models(connection: Connection, rows: Sequence[Row]) -> None:
    """A trigger appends each model's list price to model_prices."""
    await _insert(connection, _MODELS, rows)


async def update_models(connection: Connection, rows: Sequence[Row]) -> None:
    await _update(connection, _MODELS, rows)


async def delete_models(connection: Connection, ids: Sequence[str]) -> None:
    await _delete(connection, _MODELS, ids)


async def append_prices(connection: Connection, rows: Sequence[Row]) -> None:
    """Those without an `effective_at` are dated by the database's clock, now."""
    await connection.execute(
        """INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)
           SELECT r.id, r.model_id, r.unit::"UsageUnit", r.price_per_million,
                  coalesce(r.effective_at, clock_timestamp())
             FROM jsonb_to_recordset($1::jsonb)
                  AS r (id text, model_id text, unit text, price_per_million numeric, effective_at timestamptz)""",
        rows,
    )


async def upsert_settings(connection: Connection, rows: Sequence[Row]) -> None:
    # As a json value, which knows its null from SQL's, taken out of each row: a record's column could not.
    await connection.execute(
        """INSERT INTO system_settings (id, key, value, updated_at)
           SELECT r ->> 'id', r ->> 'key', r -> 'value', now() FROM jsonb_array_elements($1::jsonb) AS r
           ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()""",
        rows,
    )


async def delete_settings(connection: Connection, ids: Sequence[str]) -> None:
    await _delete(connection, "system_settings", ids)


async def _insert(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    types = _types(table, rows)
    names = ", ".join(types)
    await connection.execute(
        f"INSERT INTO {table} ({names}, updated_at) SELECT {names}, now() FROM {_recordset(types)} AS r", rows
    )


async def _update(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    """Every row gives the same columns."""
    types = _types(table, rows)
    assignments = ", ".join(f"{name} = r.{name}" for name in types if name != "id")
    await connection.execute(
        f"UPDATE {table} AS t SET {assignments}, updated_at = now() FROM {_recordset(types)} AS r WHERE t.id = r.id",
        rows,
    )


async def _delete(connection: Connection, table: str, ids: Sequence[str]) -> None:
    await connection.execute(f"DELETE FROM {table} WHERE id = ANY($1::text[])", ids)


def _types(table: str, rows: Sequence[Row]) -> Mapping[str, str]:
    """The SQL types of the columns that the rows give."""
    known = {column.name: column.sql_type for column in TABLES[table].columns}
    return {name: known[name] for name in rows[0]}


def _recordset(types: Mapping[str, str]) -> str:
    """Rows that travel as JSON, decimals in it as strings; an array of text as a JSON array."""
    columns = ", ".join(f"{name} {sql_type}" for name, sql_type in types.items())
    return f"(SELECT * FROM jsonb_to_recordset($1::jsonb) AS x ({columns}))"

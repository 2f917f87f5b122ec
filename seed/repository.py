"""All SQL of the seed: reads what is there, writes in bulk. Rows travel as JSON, decimals in it as strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.catalog.repository import lock_catalog
from app.db.pool import Connection
from app.money import print_decimal
from seed.plan import Catalog, Identity, Kind, Record, Source, Values


@dataclass(frozen=True, slots=True)
class Loaded:
    """The catalog as the plan wants it, and the ids by which to write to it."""

    catalog: Catalog
    ids: dict[Identity, str]


async def lock(connection: Connection) -> None:
    """One seed at a time, and no edit between what it read and what it writes. Readers and claims go on."""
    await lock_catalog(connection)
    await connection.execute(
        "LOCK TABLE llm_providers, llm_models, model_prices, system_settings IN SHARE ROW EXCLUSIVE MODE"
    )


async def has_provider(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM llm_providers)"))


async def load(connection: Connection) -> Loaded:
    rows: dict[Identity, Values] = {}
    ids: dict[Identity, str] = {}
    defaults: dict[Identity, Identity] = {}
    for record in await connection.fetch(
        """SELECT w.name || '/' || p.name AS key, p.id, p.display_name, p.adapter, p.base_url,
                  p.max_parallel_requests, p.requests_per_minute
             FROM llm_providers p JOIN workspaces w ON w.id = p.workspace_id"""
    ):
        identity = Identity(Kind.PROVIDER, record["key"])
        rows[identity], ids[identity] = _values(record), record["id"]
    for record in await connection.fetch(
        """SELECT w.name || '/' || p.name AS provider, w.name || '/' || p.name || ':' || m.model_id AS key, m.id,
                  m.display_name, m.description, m.model_type::text, m.context_window, m.cost_input_per_million,
                  m.cost_output_per_million, m.status::text, m.is_default
             FROM llm_models m
             JOIN llm_providers p ON p.id = m.provider_id JOIN workspaces w ON w.id = p.workspace_id"""
    ):
        identity = Identity(Kind.MODEL, record["key"])
        rows[identity], ids[identity] = _values(record), record["id"]
        if record["is_default"]:
            defaults[Identity(Kind.PROVIDER, record["provider"])] = identity
    for record in await connection.fetch(
        """SELECT DISTINCT ON (x.model_id, x.unit)
                  w.name || '/' || p.name || ':' || m.model_id || '#' || x.unit AS key, x.price_per_million
             FROM model_prices x JOIN llm_models m ON m.id = x.model_id
             JOIN llm_providers p ON p.id = m.provider_id JOIN workspaces w ON w.id = p.workspace_id
            WHERE x.unit IN ('CACHE_READ_TOKENS', 'CACHE_WRITE_TOKENS')
            ORDER BY x.model_id, x.unit, x.effective_at DESC"""
    ):
        rows[Identity(Kind.PRICE, record["key"])] = _values(record)
    for record in await connection.fetch("SELECT key, value FROM system_settings"):
        rows[Identity(Kind.SETTING, record["key"])] = {"value": record["value"]}
    records = {
        Identity(Kind(record["kind"]), record["key"]): Record(_sources(record["source"]), record["values"])
        for record in await connection.fetch('SELECT kind, key, source, "values" FROM seed_records')
    }
    return Loaded(Catalog(rows, records, defaults), ids)


async def insert_providers(connection: Connection, rows: Sequence[Values]) -> None:
    await connection.execute(
        """INSERT INTO llm_providers (id, workspace_id, name, display_name, adapter, base_url, max_parallel_requests,
                                      requests_per_minute, updated_at)
           SELECT r.id, w.id, r.name, r.display_name, r.adapter, r.base_url, r.max_parallel_requests,
                  r.requests_per_minute, now()
             FROM jsonb_to_recordset($1::jsonb) AS r (id text, workspace text, name text, display_name text,
                  adapter text, base_url text, max_parallel_requests int, requests_per_minute int)
             JOIN workspaces w ON w.name = r.workspace""",
        rows,
    )


async def update_providers(connection: Connection, rows: Sequence[Values]) -> None:
    await connection.execute(
        """UPDATE llm_providers p
              SET display_name = r.display_name, adapter = r.adapter, base_url = r.base_url,
                  max_parallel_requests = r.max_parallel_requests, requests_per_minute = r.requests_per_minute,
                  updated_at = now()
             FROM jsonb_to_recordset($1::jsonb) AS r (id text, display_name text, adapter text, base_url text,
                  max_parallel_requests int, requests_per_minute int)
            WHERE p.id = r.id""",
        rows,
    )


async def insert_models(connection: Connection, rows: Sequence[Values]) -> None:
    """A trigger appends each model's list price to model_prices."""
    await connection.execute(
        """INSERT INTO llm_models (id, workspace_id, provider_id, model_id, display_name, description, model_type,
                                   context_window, cost_input_per_million, cost_output_per_million, status,
                                   is_default, updated_at)
           SELECT r.id, p.workspace_id, p.id, r.model_id, r.display_name, r.description, r.model_type::"LlmModelType",
                  r.context_window, r.cost_input_per_million, r.cost_output_per_million,
                  r.status::"LlmModelStatus", r.is_default, now()
             FROM jsonb_to_recordset($1::jsonb) AS r (id text, provider_id text, model_id text, display_name text,
                  description text, model_type text, context_window int, cost_input_per_million numeric,
                  cost_output_per_million numeric, status text, is_default boolean)
             JOIN llm_providers p ON p.id = r.provider_id""",
        rows,
    )


async def update_models(connection: Connection, rows: Sequence[Values]) -> None:
    await connection.execute(
        """UPDATE llm_models m
              SET display_name = r.display_name, description = r.description,
                  model_type = r.model_type::"LlmModelType", context_window = r.context_window,
                  cost_input_per_million = r.cost_input_per_million,
                  cost_output_per_million = r.cost_output_per_million, status = r.status::"LlmModelStatus",
                  is_default = r.is_default, updated_at = now()
             FROM jsonb_to_recordset($1::jsonb) AS r (id text, display_name text, description text,
                  model_type text, context_window int, cost_input_per_million numeric,
                  cost_output_per_million numeric, status text, is_default boolean)
            WHERE m.id = r.id""",
        rows,
    )


async def append_prices(connection: Connection, rows: Sequence[Values]) -> None:
    """Dated by the database's clock, now."""
    await connection.execute(
        """INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)
           SELECT r.id, r.model_id, r.unit::"UsageUnit", r.price_per_million, clock_timestamp()
             FROM jsonb_to_recordset($1::jsonb) AS r (id text, model_id text, unit text, price_per_million numeric)""",
        rows,
    )


async def upsert_settings(connection: Connection, rows: Sequence[Values]) -> None:
    await connection.execute(
        """INSERT INTO system_settings (id, key, value, updated_at)
           SELECT r.id, r.key, r.value, now() FROM jsonb_to_recordset($1::jsonb) AS r (id text, key text, value jsonb)
           ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()""",
        rows,
    )


async def upsert_records(connection: Connection, rows: Sequence[Values]) -> None:
    await connection.execute(
        """INSERT INTO seed_records (kind, key, source, "values", updated_at)
           SELECT r.kind, r.key, r.source, r."values", now()
             FROM jsonb_to_recordset($1::jsonb) AS r (kind text, key text, source text, "values" jsonb)
           ON CONFLICT (kind, key) DO UPDATE
              SET source = excluded.source, "values" = excluded."values", updated_at = now()""",
        rows,
    )


def _sources(text: str) -> frozenset[Source]:
    return frozenset(Source(name) for name in text.split("+"))


def _values(record: Any) -> dict[str, Any]:
    return {
        name: print_decimal(value) if isinstance(value, Decimal) else value
        for name, value in record.items()
        if name not in ("id", "key", "provider")
    }

"""All SQL of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol, TypeVar

from app.catalog.records import LlmModel, LlmProvider, ModelPrice, SystemSetting, UsageUnit
from app.catalog.snapshot import Snapshot
from app.db.pool import Connection
from app.db.rows import (
    LLM_MODEL_COLUMNS,
    LLM_PROVIDER_COLUMNS,
    MODEL_PRICE_COLUMNS,
    SYSTEM_SETTING_COLUMNS,
    TABLES,
)

LLM_PROVIDERS: Final = f"SELECT {LLM_PROVIDER_COLUMNS} FROM llm_providers"
LLM_MODELS: Final = f"SELECT {LLM_MODEL_COLUMNS} FROM llm_models"
MODEL_PRICES: Final = f"SELECT {MODEL_PRICE_COLUMNS} FROM model_prices"
SYSTEM_SETTINGS: Final = f"SELECT {SYSTEM_SETTING_COLUMNS} FROM system_settings"

_UNFINISHED: Final = "status IN ('PENDING', 'PROCESSING')"
# Transaction ids in rows have 32 bits and are compared by their distance, which must stay well below 2**31.
_MAX_AGE: Final = 2**30


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


_Row = TypeVar("_Row", bound=_Identified)


async def lock_catalog(connection: Connection) -> None:
    """Takes the lock that every catalog change takes anyway, first: changes then queue up instead of deadlocking."""
    await connection.execute("SELECT 1 FROM revisions WHERE subject = 'catalog' FOR UPDATE")


async def read_revision(connection: Connection) -> int:
    number: int = await connection.fetchval("SELECT number FROM revisions WHERE subject = 'catalog'")
    return number


async def load_snapshot(connection: Connection, previous: Snapshot | None = None) -> Snapshot:
    """To be called in a REPEATABLE READ transaction, so that rows and revision belong together.

    With a `previous` snapshot of the same database, only what was written since is read.
    """
    head = await connection.fetchrow(
        """SELECT number, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
                  (SELECT count(*) FROM llm_providers) AS providers, (SELECT count(*) FROM llm_models) AS models,
                  (SELECT count(*) FROM model_prices) AS prices, (SELECT count(*) FROM system_settings) AS settings
             FROM revisions WHERE subject = 'catalog'"""
    )
    assert head is not None
    horizon = head["horizon"]
    known = Snapshot(0)
    since = None
    if previous is not None and 0 <= horizon - previous.horizon < _MAX_AGE:
        known, since = previous, previous.horizon
    return Snapshot(
        head["number"],
        await _load(connection, since, LLM_PROVIDERS, LlmProvider.from_record, known.providers, head["providers"]),
        await _load(connection, since, LLM_MODELS, LlmModel.from_record, known.models, head["models"]),
        await _load(connection, since, MODEL_PRICES, ModelPrice.from_record, known.prices, head["prices"]),
        await _load(connection, since, SYSTEM_SETTINGS, SystemSetting.from_record, known.settings, head["settings"]),
        horizon=horizon,
    )


async def _load(
    connection: Connection,
    since: int | None,
    selection: str,
    read: Callable[[Any], _Row],
    known: Iterable[_Row],
    count: int,
) -> Iterable[_Row]:
    if since is not None:
        # A row that the known ones may lack was written by a transaction that was under way when they were read, or
        # by a later one: by none older than the horizon of then. A subtransaction's id is above its parent's.
        written = await connection.fetch(f"{selection} WHERE age(xmin) <= age($1::text::xid)", str(since % 2**32))
        rows = {row.id: row for row in known}
        rows.update((record["id"], read(record)) for record in written)
        # Every row there is among these now; as many as there are, and none of them was deleted.
        if len(rows) == count:
            return rows.values()
    return [read(record) for record in await connection.fetch(selection)]


async def lock_provider(connection: Connection, id: str, workspace_id: str) -> LlmProvider | None:
    """Also holds off the provider's claims until the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {LLM_PROVIDER_COLUMNS} FROM llm_providers WHERE id = $1 AND workspace_id = $2 FOR UPDATE",
        id,
        workspace_id,
    )
    return None if row is None else LlmProvider.from_record(row)


async def find_model(connection: Connection, id: str, workspace_id: str) -> LlmModel | None:
    row = await connection.fetchrow(
        f"SELECT {LLM_MODEL_COLUMNS} FROM llm_models WHERE id = $1 AND workspace_id = $2",
        id,
        workspace_id,
    )
    return None if row is None else LlmModel.from_record(row)


async def lock_models(connection: Connection, *, provider_id: str, id: str | None = None) -> None:
    """Waits for submissions to these models that are under way, and holds off new ones (by their foreign key)."""
    await connection.execute(
        "SELECT 1 FROM llm_models WHERE provider_id = $1 AND ($2::text IS NULL OR id = $2) ORDER BY id FOR UPDATE",
        provider_id,
        id,
    )


async def insert_provider(connection: Connection, values: Mapping[str, Any]) -> LlmProvider:
    return LlmProvider.from_record(await _insert(connection, "llm_providers", values, LLM_PROVIDER_COLUMNS))


async def insert_model(connection: Connection, values: Mapping[str, Any]) -> LlmModel:
    return LlmModel.from_record(await _insert(connection, "llm_models", values, LLM_MODEL_COLUMNS))


async def update_provider(connection: Connection, id: str, values: Mapping[str, Any]) -> LlmProvider:
    return LlmProvider.from_record(await _update(connection, "llm_providers", id, values, LLM_PROVIDER_COLUMNS))


async def update_model(connection: Connection, id: str, values: Mapping[str, Any]) -> LlmModel:
    return LlmModel.from_record(await _update(connection, "llm_models", id, values, LLM_MODEL_COLUMNS))


async def insert_price(
    connection: Connection,
    model_id: str,
    unit: UsageUnit,
    price_per_million: Decimal | None,
    *,
    id: str,
    effective_at: datetime | None,
) -> ModelPrice:
    """Dated by the database's clock, now, where it has no `effective_at`."""
    row = await connection.fetchrow(
        f"""INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)
            VALUES ($1, $2, $3, $4, coalesce($5, clock_timestamp())) RETURNING {MODEL_PRICE_COLUMNS}""",
        id,
        model_id,
        unit,
        price_per_million,
        effective_at,
    )
    assert row is not None
    return ModelPrice.from_record(row)


async def clear_default(connection: Connection, provider_id: str, except_id: str | None = None) -> None:
    await connection.execute(
        """UPDATE llm_models SET is_default = false, updated_at = now()
            WHERE provider_id = $1 AND is_default AND id IS DISTINCT FROM $2""",
        provider_id,
        except_id,
    )


async def delete_provider(connection: Connection, id: str) -> None:
    await connection.execute("DELETE FROM llm_providers WHERE id = $1", id)


async def delete_model(connection: Connection, id: str) -> None:
    await connection.execute("DELETE FROM llm_models WHERE id = $1", id)


async def count_unfinished_requests(
    connection: Connection, *, provider_id: str | None = None, model_id: str | None = None
) -> int:
    number: int = await connection.fetchval(
        f"""SELECT count(*) FROM model_requests
             WHERE ($1::text IS NULL OR provider_id = $1) AND ($2::text IS NULL OR model_id = $2)
               AND {_UNFINISHED}""",
        provider_id,
        model_id,
    )
    return number


async def _insert(connection: Connection, table: str, values: Mapping[str, Any], returning: str) -> Any:
    columns = _checked(table, values)
    parameters = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    return await connection.fetchrow(
        f"INSERT INTO {table} ({', '.join(columns)}, updated_at) VALUES ({parameters}, now()) RETURNING {returning}",
        *values.values(),
    )


async def _update(connection: Connection, table: str, id: str, values: Mapping[str, Any], returning: str) -> Any:
    columns = _checked(table, values)
    assignments = ", ".join(f"{column} = ${index}" for index, column in enumerate(columns, start=2))
    return await connection.fetchrow(
        f"UPDATE {table} SET {assignments}, updated_at = now() WHERE id = $1 RETURNING {returning}",
        id,
        *values.values(),
    )


def _checked(table: str, values: Mapping[str, Any]) -> Sequence[str]:
    known = {column.name for column in TABLES[table].columns}
    assert values
    assert known.issuperset(values), sorted(set(values) - known)
    return tuple(values)

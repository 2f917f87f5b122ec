"""The rules that the database holds by itself, whoever writes to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from app.db.pool import Connection, Database
from app.db.rows import (
    LLM_MODEL_COLUMNS,
    LLM_PROVIDER_COLUMNS,
    MODEL_PRICE_COLUMNS,
    LlmModel,
    LlmModelStatus,
    LlmModelType,
    LlmProvider,
    ModelPrice,
    UsageUnit,
)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """With one provider `p`."""
    async with database.connection() as connection:
        await add_provider(connection, "p")
        yield connection


async def add_provider(connection: Connection, id: str, **values: Any) -> None:
    await insert(
        connection, "llm_providers", {"id": id, "workspace_id": "default", "name": id, "display_name": id, **values}
    )


async def add_model(connection: Connection, id: str, **values: Any) -> None:
    required = {"id": id, "workspace_id": "default", "provider_id": "p", "model_id": id, "display_name": id}
    await insert(connection, "llm_models", {**required, **values})


async def insert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(values)}, updated_at) VALUES ({places}, now())", *values.values()
    )


async def revision(connection: Connection, subject: str) -> int:
    number: int = await connection.fetchval("SELECT number FROM revisions WHERE subject = $1", subject)
    return number


async def prices(connection: Connection, model_id: str) -> list[tuple[UsageUnit, Decimal | None]]:
    records = await connection.fetch(
        f"SELECT {MODEL_PRICE_COLUMNS} FROM model_prices WHERE model_id = $1 ORDER BY effective_at, unit", model_id
    )
    return [(price.unit, price.price_per_million) for price in map(ModelPrice.from_record, records)]


async def test_default_workspace_exists(connection: Connection) -> None:
    assert [tuple(row) for row in await connection.fetch("SELECT id, name FROM workspaces")] == [("default", "default")]


async def test_defaults_are_those_of_the_data_model(connection: Connection) -> None:
    await add_model(connection, "m")
    record = await connection.fetchrow(f"SELECT {LLM_PROVIDER_COLUMNS} FROM llm_providers")
    assert record is not None
    provider = LlmProvider.from_record(record)
    assert (provider.max_parallel_requests, provider.requests_per_minute, provider.is_enabled) == (1, 60, True)
    assert (provider.tokens_per_minute, provider.adapter, provider.base_url) == (None, "openai", None)
    record = await connection.fetchrow(f"SELECT {LLM_MODEL_COLUMNS} FROM llm_models")
    assert record is not None
    model = LlmModel.from_record(record)
    assert (model.status, model.is_default, model.capabilities) == (LlmModelStatus.ACTIVE, False, ())
    assert (model.cost_input_per_million, model.cost_output_per_million) == (None, None)
    assert model.model_type is LlmModelType.TEXT


async def test_provider_name_is_unique_within_its_workspace_only(connection: Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await add_provider(connection, "p2", name="p")
    await connection.execute("INSERT INTO workspaces (id, name, updated_at) VALUES ('other', 'other', now())")
    await add_provider(connection, "p2", name="p", workspace_id="other")


async def test_model_id_is_unique_within_its_provider_only(connection: Connection) -> None:
    await add_model(connection, "m")
    with pytest.raises(asyncpg.UniqueViolationError):
        await add_model(connection, "m2", model_id="m")
    await add_provider(connection, "q")
    await add_model(connection, "m2", model_id="m", provider_id="q")


async def test_provider_has_at_most_one_default_model(connection: Connection) -> None:
    await add_provider(connection, "q")
    await add_model(connection, "m", is_default=True)
    await add_model(connection, "other", provider_id="q", is_default=True)
    with pytest.raises(asyncpg.UniqueViolationError, match="one_default_per_provider"):
        await add_model(connection, "m2", is_default=True)
    await connection.execute("UPDATE llm_models SET is_default = false WHERE id = 'm'")
    await add_model(connection, "m2", is_default=True)


async def test_deprecated_model_is_never_the_default(connection: Connection) -> None:
    await add_model(connection, "m", is_default=True)
    with pytest.raises(asyncpg.CheckViolationError, match="default_not_deprecated"):
        await connection.execute("UPDATE llm_models SET status = 'DEPRECATED'")
    await connection.execute("UPDATE llm_models SET status = 'DEPRECATED', is_default = false")


@pytest.mark.parametrize("column", ["model_id", "provider_id"])
async def test_identity_of_a_model_cannot_be_changed(connection: Connection, column: str) -> None:
    await add_provider(connection, "q")
    await add_model(connection, "m")
    with pytest.raises(asyncpg.CheckViolationError, match="cannot be changed after creation") as caught:
        await connection.execute(f"UPDATE llm_models SET {column} = 'q'")
    assert caught.value.constraint_name == "llm_models_identity_immutable"
    await connection.execute("UPDATE llm_models SET display_name = 'changed', model_id = 'm', provider_id = 'p'")


@pytest.mark.parametrize("column", ["cost_input_per_million", "cost_output_per_million"])
@pytest.mark.parametrize("cost", [Decimal("-0.0000000001"), Decimal("NaN")])
async def test_cost_is_not_negative_and_is_a_number(connection: Connection, column: str, cost: Decimal) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await add_model(connection, "m", **{column: cost})
    await add_model(connection, "m", **{column: Decimal(0)})


@pytest.mark.parametrize("limit", ["max_parallel_requests", "requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -1])
async def test_limit_is_at_least_one(connection: Connection, limit: str, value: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=f"{limit}_at_least_one"):
        await add_provider(connection, "q", **{limit: value})
    await add_provider(connection, "q", **{limit: 1})


async def test_deleted_provider_takes_its_models_and_prices_along(connection: Connection) -> None:
    await add_provider(connection, "q")
    await add_model(connection, "m", cost_input_per_million=Decimal(1))
    await add_model(connection, "kept", provider_id="q")
    await connection.execute("DELETE FROM llm_providers WHERE id = 'p'")
    assert await connection.fetchval("SELECT array_agg(id) FROM llm_models") == ["kept"]
    assert await connection.fetchval("SELECT array_agg(DISTINCT model_id) FROM model_prices") == ["kept"]


async def test_workspace_that_owns_something_cannot_be_deleted(connection: Connection) -> None:
    with pytest.raises((asyncpg.ForeignKeyViolationError, asyncpg.RestrictViolationError)):
        await connection.execute("DELETE FROM workspaces")


async def test_each_change_of_a_list_price_appends_a_dated_price(connection: Connection) -> None:
    await add_model(connection, "m", cost_input_per_million=Decimal("2.5"))
    await connection.execute("UPDATE llm_models SET cost_input_per_million = 3")
    await connection.execute("UPDATE llm_models SET cost_input_per_million = 3, display_name = 'same price'")
    await connection.execute("UPDATE llm_models SET cost_input_per_million = NULL, cost_output_per_million = 10")
    assert await prices(connection, "m") == [
        (UsageUnit.INPUT_TOKENS, Decimal("2.5")),
        (UsageUnit.OUTPUT_TOKENS, None),
        (UsageUnit.INPUT_TOKENS, Decimal(3)),
        (UsageUnit.INPUT_TOKENS, None),
        (UsageUnit.OUTPUT_TOKENS, Decimal(10)),
    ]


async def test_two_price_changes_in_one_transaction_are_two_dated_prices(connection: Connection) -> None:
    async with connection.transaction():
        await add_model(connection, "m", cost_input_per_million=Decimal(1))
        for cost in (2, 3, 4):
            await connection.execute("UPDATE llm_models SET cost_input_per_million = $1", Decimal(cost))
    paid = [price for unit, price in await prices(connection, "m") if unit is UsageUnit.INPUT_TOKENS]
    assert paid == [1, 2, 3, 4]


async def test_dated_price_cannot_be_changed(connection: Connection) -> None:
    await add_model(connection, "m", cost_input_per_million=Decimal(1))
    with pytest.raises(asyncpg.CheckViolationError, match="model_prices is append-only"):
        await connection.execute("UPDATE model_prices SET price_per_million = 0")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE llm_providers SET is_enabled = false",
        "UPDATE llm_models SET display_name = 'changed'",
        "UPDATE llm_models SET cost_input_per_million = 1",
        "DELETE FROM llm_models",
        "DELETE FROM llm_providers",
        "INSERT INTO system_settings (id, key, value, updated_at) VALUES ('s', 'k', '1', now())",
        "INSERT INTO model_prices (id, model_id, unit, effective_at) VALUES ('x', 'm', 'CACHE_READ_TOKENS', now())",
        "TRUNCATE system_settings",
    ],
)
async def test_change_of_the_catalog_raises_and_announces_its_revision(
    connection: Connection, database_dsn: str, change: str
) -> None:
    await add_model(connection, "m")
    before = await revision(connection, "catalog")
    async with listening(database_dsn, "tollgate_catalog") as announced:
        await connection.execute(change)
        after = await revision(connection, "catalog")
        assert after > before
        heard = 0
        while heard < after:
            heard = int(await asyncio.wait_for(announced.get(), 10))
    assert heard == after


async def test_change_of_access_raises_its_own_revision_only(connection: Connection, database_dsn: str) -> None:
    catalog, access = await revision(connection, "catalog"), await revision(connection, "access")
    async with listening(database_dsn, "tollgate_access") as announced:
        await connection.execute(
            "INSERT INTO access_tokens (id, workspace_id, name, role, token_hash, token_prefix)"
            " VALUES ('t', 'default', 't', 'ADMIN', 'hash', 'tg_')"
        )
        assert await asyncio.wait_for(announced.get(), 10) == str(access + 1)
    assert await revision(connection, "access") == access + 1
    assert await revision(connection, "catalog") == catalog


async def test_change_that_is_rolled_back_leaves_the_revision(database: Database, connection: Connection) -> None:
    before = await revision(connection, "catalog")
    with pytest.raises(RuntimeError, match="midway"):
        async with database.transaction() as other:
            await add_provider(other, "q")
            raise RuntimeError("midway")
    assert await revision(connection, "catalog") == before


@asynccontextmanager
async def listening(dsn: str, channel: str) -> AsyncIterator[asyncio.Queue[str]]:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(dsn)
    await listener.add_listener(channel, lambda _connection, _pid, _channel, payload: heard.put_nowait(str(payload)))
    yield heard
    await listener.close()

"""Changes of the catalog, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from app.catalog.records import (
    CreateModel,
    CreateProvider,
    LlmModel,
    LlmModelStatus,
    LlmProvider,
    UpdateModel,
    UpdateProvider,
    UsageUnit,
)
from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database
from app.errors import Conflict, ModelUnavailable, NotFound, ValidationError


@pytest.fixture
async def openai(catalog: CatalogService) -> LlmProvider:
    return await catalog.create_provider(CreateProvider(name="openai", display_name="OpenAI"))


async def make_model(catalog: CatalogService, provider: LlmProvider, model_id: str, **fields: Any) -> LlmModel:
    return await catalog.create_model(
        CreateModel(provider_id=provider.id, model_id=model_id, display_name=model_id.upper(), **fields)
    )


async def submit(database: Database, model: LlmModel, status: str = "PENDING") -> None:
    async with database.transaction() as connection:
        await connection.execute(
            """INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, status, payload,
                                           reserved_tokens, lease_id, lease_expires_at)
               SELECT gen_random_uuid()::text, 'default', $1, $2, 'ref', $3::text::"ModelRequestStatus", '{}', 1,
                      CASE WHEN $3::text = 'PROCESSING' THEN 'lease' END,
                      CASE WHEN $3::text = 'PROCESSING' THEN now() END""",
            model.provider_id,
            model.id,
            status,
        )


def defaults(snapshots: SnapshotHolder, provider: LlmProvider) -> list[str]:
    return [row.model_id for row in snapshots.current.models_of(provider.id) if row.is_default]


async def test_a_provider_has_the_reference_defaults_and_is_read_back_at_once(
    catalog: CatalogService, snapshots: SnapshotHolder
) -> None:
    created = await catalog.create_provider(CreateProvider(name="openai", display_name=" OpenAI "))
    assert (created.display_name, created.adapter, created.base_url) == ("OpenAI", "openai", None)
    assert (created.max_parallel_requests, created.requests_per_minute, created.tokens_per_minute) == (1, 60, None)
    assert created.is_enabled
    assert snapshots.current.provider_by_name("default", "openai") == created


async def test_an_update_changes_only_what_it_names(catalog: CatalogService, openai: LlmProvider) -> None:
    updated = await catalog.update_provider(
        openai.id, UpdateProvider(tokens_per_minute=90_000, base_url="https://api.example.com/v1/", is_enabled=False)
    )
    assert (updated.tokens_per_minute, updated.base_url, updated.is_enabled) == (
        90_000,
        "https://api.example.com/v1",
        False,
    )
    assert (updated.display_name, updated.requests_per_minute) == ("OpenAI", 60)
    cleared = await catalog.update_provider(openai.id, UpdateProvider(tokens_per_minute=None, base_url=None))
    assert (cleared.tokens_per_minute, cleared.base_url, cleared.is_enabled) == (None, None, False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "Open AI"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a:b"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"display_name": "  "}, "displayName"),
        ({"display_name": "a\x00b"}, "displayName"),
        ({"display_name": "\ud800"}, "displayName"),
        ({"display_name": "x" * 201}, "displayName"),
        ({"adapter": "smoke-signals"}, "adapter"),
        ({"max_parallel_requests": 0}, "maxParallelRequests"),
        ({"requests_per_minute": -1}, "requestsPerMinute"),
        ({"requests_per_minute": 2**31}, "requestsPerMinute"),
        ({"tokens_per_minute": 0}, "tokensPerMinute"),
        ({"base_url": "ftp://example.com"}, "baseUrl"),
        ({"base_url": "https://"}, "baseUrl"),
        ({"base_url": "https://example.com:99999"}, "baseUrl"),
        ({"base_url": "https://example.com/?key=1"}, "baseUrl"),
        ({"base_url": "https://exa mple.com"}, "baseUrl"),
        ({"base_url": "https://example.com/" + "x" * 2_000}, "baseUrl"),
    ],
)
async def test_a_provider_out_of_bounds_is_refused_by_field_name(
    catalog: CatalogService, snapshots: SnapshotHolder, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await catalog.create_provider(CreateProvider(**{"name": "openai", "display_name": "OpenAI"} | fields))
    assert caught.value.field == field
    assert (await snapshots.refresh()).providers == ()


@pytest.mark.parametrize("name", ["display_name", "adapter", "is_enabled", "requests_per_minute"])
async def test_null_does_not_clear_what_has_to_be_there(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder, name: str
) -> None:
    fields: dict[str, Any] = {name: None}
    with pytest.raises(ValidationError):
        await catalog.update_provider(openai.id, UpdateProvider(**fields))
    assert (await snapshots.refresh()).provider(openai.id) == openai


async def test_credentials_in_a_base_url_are_refused_and_not_repeated(catalog: CatalogService) -> None:
    with pytest.raises(ValidationError, match="baseUrl") as caught:
        await catalog.create_provider(
            CreateProvider(name="openai", display_name="OpenAI", base_url="https://user:hunter2@example.com")
        )
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.value)


async def test_a_second_provider_of_one_name_is_a_conflict(catalog: CatalogService, openai: LlmProvider) -> None:
    with pytest.raises(Conflict, match="openai"):
        await catalog.create_provider(CreateProvider(name="openai", display_name="Again"))


async def test_one_name_may_be_used_in_each_workspace(
    database: Database, catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO workspaces (id, name, updated_at) VALUES ('w2', 'second', now())")
    other = await catalog.create_provider(CreateProvider(name="openai", display_name="Theirs"), workspace_id="w2")
    assert snapshots.current.provider_by_name("w2", "openai") == other
    with pytest.raises(NotFound):
        await catalog.update_provider(other.id, UpdateProvider(display_name="Mine now"))
    with pytest.raises(NotFound):
        await catalog.create_provider(CreateProvider(name="x", display_name="X"), workspace_id="nowhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda catalog: catalog.update_provider("none", UpdateProvider(is_enabled=False)),
        lambda catalog: catalog.delete_provider("none"),
        lambda catalog: catalog.delete_provider("\x00"),
        lambda catalog: catalog.delete_model("\ud800"),
        lambda catalog: catalog.create_model(CreateModel(provider_id="none", model_id="m", display_name="M")),
        lambda catalog: catalog.update_model("none", UpdateModel(display_name="M")),
        lambda catalog: catalog.deprecate_model("none"),
        lambda catalog: catalog.set_default_model("none"),
        lambda catalog: catalog.delete_model("none"),
    ],
)
async def test_a_change_of_what_is_not_there_is_not_found(
    catalog: CatalogService, change: Callable[[CatalogService], Awaitable[object]]
) -> None:
    with pytest.raises(NotFound):
        await change(catalog)


async def test_prices_are_kept_exactly_and_an_unknown_one_stays_unknown(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    made = await make_model(catalog, openai, "gpt", cost_input_per_million="0.00875")
    assert (made.cost_input_per_million, made.cost_output_per_million) == (Decimal("0.00875"), None)
    await catalog.update_model(made.id, UpdateModel(cost_input_per_million="0.01"))
    dated = snapshots.current.prices_of(made.id, UsageUnit.INPUT_TOKENS)
    assert [price.price_per_million for price in dated] == [Decimal("0.00875"), Decimal("0.01")]
    assert snapshots.current.price_at(made.id, UsageUnit.INPUT_TOKENS, dated[1].effective_at) is dated[1]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model_id": "with space"}, "modelId"),
        ({"model_id": ""}, "modelId"),
        ({"cost_input_per_million": "-0.1"}, "costInputPerMillion"),
        ({"cost_output_per_million": "NaN"}, "costOutputPerMillion"),
        ({"cost_output_per_million": "1e10"}, "costOutputPerMillion"),
        ({"context_window": 0}, "contextWindow"),
        ({"max_output_tokens": 2**31}, "maxOutputTokens"),
        ({"capabilities": ("Vision!",)}, "capabilities"),
        ({"description": ""}, "description"),
    ],
)
async def test_a_model_out_of_bounds_is_refused_by_field_name(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await make_model(catalog, openai, **{"model_id": "gpt"} | fields)
    assert caught.value.field == field
    assert (await snapshots.refresh()).models == ()


async def test_a_second_model_of_one_id_is_a_conflict(catalog: CatalogService, openai: LlmProvider) -> None:
    await make_model(catalog, openai, "gpt", is_default=True)
    with pytest.raises(Conflict, match="gpt"):
        await make_model(catalog, openai, "gpt", is_default=True)


async def test_second_default_model_replaces_the_first(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    first = await make_model(catalog, openai, "first", is_default=True)
    second = await make_model(catalog, openai, "second", is_default=True)
    assert defaults(snapshots, openai) == ["second"]
    assert (await catalog.set_default_model(first.id)).is_default
    assert defaults(snapshots, openai) == ["first"]
    assert snapshots.current.model(second.id) is not None


async def test_a_default_set_by_many_at_once_is_one(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder, database_dsn: str
) -> None:
    models = [await make_model(catalog, openai, f"m{number}") for number in range(8)]
    other_database = await Database.connect(database_dsn)
    other = CatalogService(other_database, SnapshotHolder(other_database))
    try:
        answers = await asyncio.gather(
            *(service.set_default_model(row.id) for row in models * 3 for service in (catalog, other)),
            *(catalog.update_model(row.id, UpdateModel(context_window=9)) for row in models),
        )
    finally:
        await other_database.close()
    assert len(answers) == 56
    assert len(defaults(snapshots, openai)) == 1


async def test_deprecating_the_default_ends_its_being_the_default(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    made = await make_model(catalog, openai, "gpt", is_default=True)
    await make_model(catalog, openai, "newer")
    deprecated = await catalog.deprecate_model(made.id)
    assert (deprecated.status, deprecated.is_default) == (LlmModelStatus.DEPRECATED, False)
    assert snapshots.current.model_by_ref("openai:gpt") == deprecated
    with pytest.raises(ModelUnavailable, match="deprecated") as caught:
        await catalog.set_default_model(made.id)
    assert caught.value.alternatives == ("openai:newer",)
    assert (await catalog.reactivate_model(made.id)).status is LlmModelStatus.ACTIVE
    assert defaults(snapshots, openai) == []
    assert (await catalog.set_default_model(made.id)).is_default


async def test_the_database_itself_holds_a_model_id_for_life(
    database: Database, catalog: CatalogService, openai: LlmProvider
) -> None:
    made = await make_model(catalog, openai, "gpt")
    with pytest.raises(asyncpg.CheckViolationError, match="cannot be changed after creation"):
        async with database.transaction() as connection:
            await connection.execute("UPDATE llm_models SET model_id = 'other' WHERE id = $1", made.id)


@pytest.mark.parametrize("status", ["PENDING", "PROCESSING"])
async def test_what_has_unfinished_requests_is_not_deleted(
    database: Database, catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder, status: str
) -> None:
    made = await make_model(catalog, openai, "gpt")
    await submit(database, made, status)
    await submit(database, made, "COMPLETED")
    with pytest.raises(Conflict, match="openai:gpt' has 1 unfinished request:"):
        await catalog.delete_model(made.id)
    await submit(database, made, status)
    with pytest.raises(Conflict, match="'openai' has 2 unfinished requests:"):
        await catalog.delete_provider(openai.id)
    assert (await snapshots.refresh()).model(made.id) == made


async def test_a_submission_under_way_holds_off_the_deletion(
    database: Database, catalog: CatalogService, openai: LlmProvider
) -> None:
    made = await make_model(catalog, openai, "gpt")
    async with database.transaction() as connection:
        await connection.execute(
            """INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, payload, reserved_tokens)
               VALUES ('r', 'default', $1, $2, 'ref', '{}', 1)""",
            openai.id,
            made.id,
        )
        deletion = asyncio.create_task(catalog.delete_model(made.id))
        await _until_blocked(database)
    with pytest.raises(Conflict):
        await deletion


async def _until_blocked(database: Database) -> None:
    async with database.connection() as connection:
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            pass


async def test_a_deleted_provider_takes_its_models_along(
    database: Database, catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    made = await make_model(catalog, openai, "gpt")
    await submit(database, made, "COMPLETED")
    assert await catalog.delete_provider(openai.id) == openai
    assert (snapshots.current.providers, snapshots.current.models) == ((), ())


async def test_nothing_to_change_leaves_the_revision(
    catalog: CatalogService, openai: LlmProvider, snapshots: SnapshotHolder
) -> None:
    before = snapshots.current.revision
    assert await catalog.update_provider(openai.id, UpdateProvider()) == openai
    assert (await snapshots.refresh()).revision == before

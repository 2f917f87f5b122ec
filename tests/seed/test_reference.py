"""The reference seed against a real database."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from app.db.pool import Database
from seed import service
from seed.plan import SCHEMA_DEFAULTS, Item, Kind, Outcome, Plan
from seed.reference import load_reference

PROVIDERS = [
    ("anthropic", "Anthropic", 3, 40, "anthropic", "https://api.anthropic.com"),
    ("deepseek", "DeepSeek", 2, 30, "openai", "https://api.deepseek.com/v1"),
    ("google", "Google", 1, 10, "google", "https://generativelanguage.googleapis.com/v1beta"),
    ("mistral", "Mistral", 2, 30, "openai", "https://api.mistral.ai/v1"),
    ("openai", "OpenAI", 5, 60, "openai", "https://api.openai.com/v1"),
    ("xai", "xAI", 2, 30, "openai", "https://api.x.ai/v1"),
]
MODELS = [
    ("openai", "gpt-4o-mini", "GPT-4o Mini", "0.15", "0.60", True),
    ("openai", "gpt-4o", "GPT-4o", "2.50", "10.00", False),
    ("openai", "gpt-4.1", "GPT-4.1", "2.00", "8.00", False),
    ("openai", "o1", "o1", "15.00", "60.00", False),
    ("openai", "o1-mini", "o1 Mini", "1.10", "4.40", False),
    ("openai", "o3-mini", "o3 Mini", "1.10", "4.40", False),
    ("anthropic", "claude-sonnet-4-20250514", "Claude Sonnet 4", "3.00", "15.00", True),
    ("anthropic", "claude-3-5-haiku-20241022", "Claude 3.5 Haiku", "0.80", "4.00", False),
    ("anthropic", "claude-opus-4-20250514", "Claude Opus 4", "15.00", "75.00", False),
    ("google", "gemini-2.5-pro-preview-06-05", "Gemini 2.5 Pro", "1.25", "10.00", True),
    ("google", "gemini-2.5-flash-preview-05-20", "Gemini 2.5 Flash", "0.15", "0.60", False),
    ("xai", "grok-3-mini-fast", "Grok 3 Mini Fast", "0.30", "0.50", True),
    ("xai", "grok-3", "Grok 3", "3.00", "15.00", False),
    ("deepseek", "deepseek-chat", "DeepSeek Chat", "0.14", "0.28", True),
    ("deepseek", "deepseek-reasoner", "DeepSeek Reasoner", "0.55", "2.19", False),
    ("mistral", "mistral-large-2411", "Mistral Large", "2.00", "6.00", True),
    ("mistral", "mistral-small-2503", "Mistral Small", "0.20", "0.60", False),
]


async def fetch(database: Database, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(record) for record in await connection.fetch(query, *arguments)]


async def execute(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


async def revision(database: Database) -> int:
    ((number,),) = await fetch(database, "SELECT number FROM revisions WHERE subject = 'catalog'")
    return int(number)


def with_values(item: Item, **values: Any) -> Item:
    return Item(item.identity, {**item.values, **values}, item.parent)


async def seed_upgraded(database: Database, monkeypatch: pytest.MonkeyPatch, key: str, **values: Any) -> Plan:
    """Seeds a reference of a later release, in which one row says something else."""
    items = [with_values(item, **values) if item.identity.key == key else item for item in load_reference()]
    monkeypatch.setattr(service, "load_reference", lambda: items)
    return await service.seed_reference(database)


async def test_the_figures_are_exactly_the_references(database: Database) -> None:
    await service.seed_reference(database)
    providers = await fetch(
        database,
        "SELECT name, display_name, max_parallel_requests, requests_per_minute, adapter, base_url"
        " FROM llm_providers WHERE is_enabled AND workspace_id = 'default' ORDER BY name",
    )
    assert providers == PROVIDERS
    models = await fetch(
        database,
        "SELECT p.name, m.model_id, m.display_name, m.cost_input_per_million, m.cost_output_per_million, m.is_default"
        " FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id"
        " WHERE m.status = 'ACTIVE' AND m.workspace_id = 'default'",
    )
    expected = [(p, m, name, Decimal(i), Decimal(o), default) for p, m, name, i, o, default in MODELS]
    assert sorted(models) == sorted(expected)
    assert await fetch(database, "SELECT key, value FROM system_settings") == [
        ("infra_model_scenario_expansion", {"modelId": "gpt-4o-mini", "providerId": "openai"})
    ]


async def test_each_model_has_its_list_price_dated(database: Database) -> None:
    await service.seed_reference(database)
    assert await fetch(database, "SELECT count(*), count(DISTINCT model_id) FROM model_prices") == [(34, 17)]


async def test_a_second_run_finds_all_unchanged_and_raises_no_revision(database: Database) -> None:
    first = await service.seed_reference(database)
    assert first.total(Outcome.CREATE) == 24
    before = await revision(database)
    second = await service.seed_reference(database)
    assert second.total(Outcome.UNCHANGED) == 24
    assert await revision(database) == before


async def test_operators_edits_and_deletions_and_rows_are_kept(database: Database) -> None:
    await execute(
        database,
        "INSERT INTO llm_providers (id, workspace_id, name, display_name, updated_at)"
        " VALUES ('own', 'default', 'xai', 'Our proxy', now())",
    )
    await service.seed_reference(database)
    await execute(database, "UPDATE llm_models SET cost_input_per_million = 9 WHERE model_id = 'gpt-4o'")
    await execute(database, "UPDATE llm_models SET status = 'INACTIVE' WHERE model_id = 'o1'")
    await execute(database, "DELETE FROM llm_providers WHERE name = 'mistral'")
    await execute(database, """UPDATE system_settings SET value = '{"modelId": "o1", "providerId": "openai"}'""")
    before = await revision(database)
    done = await service.seed_reference(database)
    assert await revision(database) == before
    kept = {action.item.identity.key for action in done.actions if action.outcome is Outcome.KEPT}
    assert kept == {
        "default/xai",
        "default/openai:gpt-4o",
        "default/openai:o1",
        "default/mistral",
        "default/mistral:mistral-large-2411",
        "default/mistral:mistral-small-2503",
        "infra_model_scenario_expansion",
    }
    assert await fetch(database, "SELECT display_name, requests_per_minute FROM llm_providers WHERE name = 'xai'") == [
        ("Our proxy", 60)
    ]


async def test_an_operators_default_is_kept(database: Database) -> None:
    await service.seed_reference(database)
    await execute(database, "UPDATE llm_models SET is_default = false WHERE model_id = 'gpt-4o-mini'")
    await execute(database, "UPDATE llm_models SET is_default = true WHERE model_id = 'o1'")
    await service.seed_reference(database)
    defaults = await fetch(
        database,
        "SELECT model_id FROM llm_models WHERE is_default AND provider_id = ("
        "SELECT id FROM llm_providers WHERE name = 'openai')",
    )
    assert defaults == [("o1",)]


async def test_a_later_releases_figures_replace_the_seeds_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.seed_reference(database)
    await execute(database, "UPDATE llm_models SET display_name = 'Ours' WHERE model_id = 'gpt-4o'")
    done = await seed_upgraded(
        database, monkeypatch, "default/openai:gpt-4o", display_name="GPT 4o", cost_input_per_million="2.25"
    )
    assert (done.total(Outcome.UPDATE), done.total(Outcome.UNCHANGED)) == (1, 23)
    assert await fetch(
        database, "SELECT display_name, cost_input_per_million FROM llm_models WHERE model_id = 'gpt-4o'"
    ) == [("Ours", Decimal("2.25"))]
    prices = await fetch(
        database,
        "SELECT price_per_million FROM model_prices JOIN llm_models m ON m.id = model_prices.model_id"
        " WHERE m.model_id = 'gpt-4o' AND unit = 'INPUT_TOKENS' ORDER BY effective_at",
    )
    assert prices == [(Decimal("2.5"),), (Decimal("2.25"),)]


async def test_the_seeds_default_can_move_under_the_one_default_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.seed_reference(database)
    moved = {"default/openai:gpt-4o": True, "default/openai:gpt-4o-mini": False}
    items = [
        with_values(item, is_default=moved[item.identity.key]) if item.identity.key in moved else item
        for item in load_reference()
    ]
    monkeypatch.setattr(service, "load_reference", lambda: items)
    done = await service.seed_reference(database)
    assert done.total(Outcome.UPDATE) == 2
    assert await fetch(
        database,
        "SELECT model_id FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id"
        " WHERE is_default AND p.name = 'openai'",
    ) == [("gpt-4o",)]


async def test_a_dry_run_plans_all_and_writes_nothing(database: Database) -> None:
    before = await revision(database)
    planned = await service.seed_reference(database, dry_run=True)
    assert planned.total(Outcome.CREATE) == 24
    assert await fetch(database, "SELECT count(*) FROM llm_providers") == [(0,)]
    assert await fetch(database, "SELECT count(*) FROM seed_records") == [(0,)]
    assert await revision(database) == before


async def test_an_error_midway_leaves_nothing_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await revision(database)
    with pytest.raises(asyncpg.CheckViolationError):
        await seed_upgraded(database, monkeypatch, "default/mistral:mistral-small-2503", context_window=0)
    assert await fetch(database, "SELECT count(*) FROM llm_providers") == [(0,)]
    assert await fetch(database, "SELECT count(*) FROM seed_records") == [(0,)]
    assert await revision(database) == before


async def test_two_seeds_at_once_make_one_catalog(database_dsn: str, database: Database) -> None:
    other = await Database.connect(database_dsn)
    try:
        plans = await asyncio.gather(service.seed_reference(database), service.seed_reference(other))
        assert sorted(done.total(Outcome.CREATE) for done in plans) == [0, 24]
        assert await fetch(database, "SELECT count(*) FROM llm_models") == [(17,)]
    finally:
        await other.close()


async def test_only_an_empty_catalog_is_seeded_and_by_one_process_only(database_dsn: str, database: Database) -> None:
    other = await Database.connect(database_dsn)
    try:
        plans = await asyncio.gather(service.seed_if_empty(database), service.seed_if_empty(other))
        assert [done is None for done in plans].count(True) == 1
        assert await service.seed_if_empty(database) is None
    finally:
        await other.close()


async def test_an_edit_during_the_seed_is_not_lost(database_dsn: str, database: Database) -> None:
    """An operator's transaction is open when the seed starts: the seed waits for it, and then keeps what it wrote."""
    await service.seed_reference(database)
    operator = await asyncpg.connect(database_dsn)
    transaction = operator.transaction()
    await transaction.start()
    await operator.execute("UPDATE llm_models SET display_name = 'Ours' WHERE model_id = 'gpt-4o'")
    seeding = asyncio.create_task(service.seed_reference(database))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not await operator.fetchval(waiting):
        assert not seeding.done()
    await transaction.commit()
    await operator.close()
    done = await seeding
    assert done.count(Kind.MODEL, Outcome.KEPT) == 1


async def test_the_defaults_that_plans_assume_are_the_schemas(database: Database) -> None:
    for kind, table in ((Kind.PROVIDER, "llm_providers"), (Kind.MODEL, "llm_models")):
        columns = dict(
            await fetch(
                database,
                "SELECT column_name::text, column_default FROM information_schema.columns WHERE table_name = $1",
                table,
            )
        )
        for name, value in SCHEMA_DEFAULTS[kind].items():
            default = columns[name]
            literal = None if default is None else default.split("::")[0].strip("'")
            assert literal == (None if value is None else str(value).lower() if isinstance(value, bool) else str(value))

"""Plans and what applying them does, on a database."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from app.catalog.records import LlmModelStatus, UpdateModel, UpdateProvider
from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.configuration.service import ConfigurationService
from app.db.pool import Database
from app.errors import ConfigurationError, Conflict
from tests.app.configuration.conftest import Loads, fetch, lines

ACME = """
providers:
  - name: acme
    displayName: Acme
    baseUrl: https://acme.example/v1
    limits: {maxParallelRequests: 4}
    models:
      - {modelId: a, displayName: A, isDefault: true, capabilities: [chat],
         prices: {inputTokens: 0.15, outputTokens: 1}}
      - {modelId: b, displayName: B, prices: {inputTokens: 2, cacheReadTokens: 0.5}}
settings:
  infra_model_summarization: acme:a
  greeting: {text: hello, times: 2}
"""
PRICES = """SELECT unit::text, price_per_million FROM model_prices x JOIN llm_models m ON m.id = x.model_id
             WHERE m.model_id = $1 ORDER BY effective_at, unit"""


async def revision(database: Database) -> int:
    ((number,),) = await fetch(database, "SELECT number FROM revisions WHERE subject = 'catalog'")
    return int(number)


async def request_of(database: Database, model_id: str) -> None:
    async with database.connection() as connection:
        await connection.execute(
            """INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, payload, reserved_tokens)
               SELECT 'r' || m.id, m.workspace_id, m.provider_id, m.id, 'x:y', '{}', 1 FROM llm_models m
                WHERE m.model_id = $1""",
            model_id,
        )


async def test_a_file_becomes_the_catalog_and_then_nothing_differs(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    document = read(ACME)
    plan = await service.plan(document)
    assert [line.split(" (")[0] for line in lines(plan)] == [
        "+ provider acme",
        "+ model acme:a",
        "+ model acme:b",
        "+ setting greeting",
        "+ setting infra_model_summarization",
    ]
    assert await fetch(database, "SELECT 1 FROM llm_providers") == []
    assert await service.apply(document, shown=plan) == plan
    assert await fetch(
        database,
        """SELECT m.model_id, m.display_name, is_default, capabilities, cost_input_per_million, status::text,
                  max_parallel_requests, requests_per_minute, m.workspace_id
             FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id ORDER BY 1""",
    ) == [
        ("a", "A", True, ["chat"], Decimal("0.15"), "ACTIVE", 4, 60, "default"),
        ("b", "B", False, [], Decimal(2), "ACTIVE", 4, 60, "default"),
    ]
    assert await fetch(database, PRICES, "b") == [
        ("INPUT_TOKENS", Decimal(2)),
        ("OUTPUT_TOKENS", None),
        ("CACHE_READ_TOKENS", Decimal("0.5")),
    ]
    assert await fetch(database, "SELECT key, value FROM system_settings ORDER BY 1") == [
        ("greeting", {"text": "hello", "times": 2}),
        ("infra_model_summarization", "acme:a"),
    ]
    before = await revision(database)
    assert (await service.apply(document, prune=True)).changes == ()
    assert await revision(database) == before


async def test_a_field_that_is_left_out_stays_as_it_is(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    holder = SnapshotHolder(database)
    await holder.refresh()
    catalog = CatalogService(database, holder)
    provider = holder.current.provider_by_name("default", "acme")
    assert provider is not None
    await catalog.update_provider(provider.id, UpdateProvider(requests_per_minute=7, base_url=None))
    plan = await service.apply(read("providers: [{name: acme, baseUrl: 'https://acme.example/v1', models: []}]"))
    assert lines(plan) == ["~ provider acme (baseUrl: None -> https://acme.example/v1)"]
    rows = await fetch(database, "SELECT requests_per_minute, display_name, count(*) OVER () FROM llm_providers")
    assert rows == [(7, "Acme", 1)]
    assert await fetch(database, "SELECT count(*) FROM llm_models") == [(2,)]


async def test_null_clears_a_field(service: ConfigurationService, database: Database, read: Loads) -> None:
    await service.apply(read(ACME))
    plan = await service.apply(
        read("providers: [{name: acme, baseUrl: null, models: [{modelId: b, prices: {inputTokens: null}}]}]")
    )
    assert lines(plan) == [
        "~ provider acme (baseUrl: https://acme.example/v1 -> None)",
        "~ model acme:b (prices.inputTokens: 2 -> None)",
    ]
    assert await fetch(database, "SELECT cost_input_per_million FROM llm_models WHERE model_id = 'b'") == [(None,)]


async def test_a_new_price_is_appended_and_the_old_one_stays(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    await service.apply(
        read("providers: [{name: acme, models: [{modelId: b, prices: {inputTokens: 3, cacheReadTokens: 0.75}}]}]")
    )
    assert await fetch(database, PRICES, "b") == [
        ("INPUT_TOKENS", Decimal(2)),
        ("OUTPUT_TOKENS", None),
        ("CACHE_READ_TOKENS", Decimal("0.5")),
        ("INPUT_TOKENS", Decimal(3)),
        ("CACHE_READ_TOKENS", Decimal("0.75")),
    ]


DATED = """
providers:
  - name: acme
    models:
      - modelId: b
        prices:
          inputTokens:
            - price: 2
            - {price: 1, effectiveAt: 2020-01-01}
            - {price: 5, effectiveAt: 2999-01-01}
          cacheReadTokens: [{price: 0.25, effectiveAt: 2999-01-01}]
"""


async def test_dated_prices_are_added_and_the_one_in_force_is_the_list_price(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    plan = await service.apply(read(DATED))
    assert lines(plan) == [
        "~ model acme:b (prices.inputTokens from 2020-01-01T00:00:00Z: None -> 1, "
        "prices.inputTokens from 2999-01-01T00:00:00Z: None -> 5, prices.inputTokens: 2 -> 1, "
        "prices.cacheReadTokens from 2999-01-01T00:00:00Z: None -> 0.25)"
    ]
    assert [row for row in await fetch(database, PRICES, "b") if row[0] == "INPUT_TOKENS"] == [
        ("INPUT_TOKENS", Decimal(1)),
        ("INPUT_TOKENS", Decimal(2)),
        ("INPUT_TOKENS", Decimal(1)),
        ("INPUT_TOKENS", Decimal(5)),
    ]
    assert await fetch(database, "SELECT cost_input_per_million FROM llm_models WHERE model_id = 'b'") == [(1,)]
    assert (await service.plan(read(DATED))).changes == ()


async def test_a_dated_price_is_never_changed(service: ConfigurationService, read: Loads) -> None:
    await service.apply(read(ACME))
    await service.apply(read(DATED))
    with pytest.raises(ConfigurationError, match=r"tollgate\.yaml:10: .*must stay 5 from 2999-01-01.*never changed"):
        await service.plan(read(DATED.replace("price: 5", "price: 6")))


async def test_a_scheduled_price_that_came_into_force_becomes_the_list_price(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    async with database.connection() as connection:
        await connection.execute(
            """INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)
               SELECT 'p1', id, 'INPUT_TOKENS', 1.5, clock_timestamp() FROM llm_models WHERE model_id = 'b'"""
        )
    ((dated,),) = await fetch(database, "SELECT effective_at FROM model_prices WHERE id = 'p1'")
    text = f"""providers: [{{name: acme, models: [{{modelId: b, prices: {{inputTokens: [
        {{price: 2}}, {{price: 1.5, effectiveAt: "{dated.isoformat()}"}}]}}}}]}}]"""
    assert lines(await service.apply(read(text))) == ["~ model acme:b (prices.inputTokens: 2 -> 1.5)"]
    assert await fetch(database, "SELECT cost_input_per_million FROM llm_models WHERE model_id = 'b'") == [
        (Decimal("1.5"),)
    ]
    assert (await service.plan(read(text))).changes == ()


async def test_another_default_ends_the_first(service: ConfigurationService, database: Database, read: Loads) -> None:
    await service.apply(read(ACME))
    text = "providers: [{name: acme, models: [{modelId: 0, displayName: Z, isDefault: true}]}]"
    plan = await service.apply(read(text))
    assert lines(plan) == [
        "+ model acme:0 (displayName: None -> Z, isDefault: None -> True)",
        "~ model acme:a (isDefault: True -> False)",
    ]
    assert await fetch(database, "SELECT model_id FROM llm_models WHERE is_default") == [("0",)]
    plan = await service.apply(read("providers: [{name: acme, models: [{modelId: b, isDefault: true}]}]"))
    assert await fetch(database, "SELECT model_id FROM llm_models WHERE is_default") == [("b",)]


async def test_a_deprecated_model_stops_being_the_default(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    plan = await service.apply(read("providers: [{name: acme, models: [{modelId: a, status: DEPRECATED}]}]"))
    assert lines(plan) == ["~ model acme:a (status: ACTIVE -> DEPRECATED, isDefault: True -> False)"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "providers:\n- name: acme\n  models:\n  - {modelId: a, isDefault: true}\n  - {modelId: b, isDefault: true}",
            ":5: providers[acme].models[b].isDefault must not be true: 'a' is the default",
        ),
        (
            "providers:\n- name: acme\n  models:\n  - {modelId: a, isDefault: true, status: DEPRECATED}",
            ":4: providers[acme].models[a].isDefault must be false: the model is deprecated",
        ),
        (
            "providers:\n- name: acme\n  models:\n  - {modelId: b, isDefault: true, status: INACTIVE}",
            ":4: providers[acme].models[b].isDefault must be false: the model is inactive",
        ),
        ("providers:\n- name: new", ":2: providers[new].displayName must be given: the catalog does not have it yet"),
        (
            "providers:\n- name: acme\n  models: [{modelId: c}]",
            ":3: providers[acme].models[c].displayName must be given: the catalog does not have it yet",
        ),
        (
            "settings:\n  infra_model_x: acme:gone",
            ":2: settings.infra_model_x: model 'acme:gone' cannot be used: provider 'acme' has no model 'gone'",
        ),
        ("settings:\n  infra_model_x: 5", ":2: settings.infra_model_x must be {"),
        (
            "providers: [{name: acme, isEnabled: false}]\nsettings:\n  infra_model_x: acme:b",
            ":3: settings.infra_model_x: model 'acme:b' cannot be used: its provider 'acme' is disabled",
        ),
    ],
)
async def test_what_the_catalog_does_not_allow_is_refused_and_nothing_is_written(
    service: ConfigurationService, database: Database, read: Loads, text: str, expected: str
) -> None:
    await service.apply(read(ACME))
    before = await revision(database)
    for act in (service.plan, service.apply):
        with pytest.raises(ConfigurationError) as refused:
            await act(read(text))
        assert expected in refused.value.message
    assert await revision(database) == before


async def test_a_setting_may_name_a_model_of_the_same_file(service: ConfigurationService, read: Loads) -> None:
    text = ACME.replace("acme:a\n", "{modelId: b, providerId: acme}\n")
    assert (await service.apply(read(text))).changes


async def test_prune_deletes_what_the_file_does_not_name(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    await service.apply(read("providers: [{name: gone, displayName: Gone, models: [{modelId: x, displayName: X}]}]"))
    text = "providers: [{name: acme, models: [{modelId: b}]}]\nsettings: {greeting: hi}"
    assert [line for line in lines(await service.plan(read(text))) if line.startswith("-")] == []
    plan = await service.apply(read(text), prune=True)
    assert lines(plan) == [
        "- model acme:a",
        "- provider gone",
        "- model gone:x",
        "~ setting greeting (value: {'text': 'hello', 'times': 2} -> hi)",
        "- setting infra_model_summarization",
    ]
    assert await fetch(database, "SELECT model_id FROM llm_models") == [("b",)]
    assert await fetch(database, "SELECT name FROM llm_providers") == [("acme",)]
    assert await fetch(database, "SELECT key FROM system_settings") == [("greeting",)]
    assert (await service.plan(read(text), prune=True)).changes == ()


async def test_prune_leaves_alone_what_the_file_has_no_section_for(service: ConfigurationService, read: Loads) -> None:
    await service.apply(read(ACME))
    for text in (
        "providers: [{name: acme}]",
        "settings: {greeting: {text: hello, times: 2}, infra_model_summarization: acme:a}",
    ):
        assert (await service.apply(read(text), prune=True)).changes == ()


async def test_prune_deprecates_models_that_requests_refer_to(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    await request_of(database, "a")
    plan = await service.apply(read("providers: []"), prune=True)
    assert lines(plan) == [
        "~ provider acme (isEnabled: True -> False)",
        "~ model acme:a (status: ACTIVE -> DEPRECATED, isDefault: True -> False)",
        "- model acme:b",
    ]
    assert await fetch(database, "SELECT model_id, status::text FROM llm_models") == [("a", "DEPRECATED")]
    assert (await service.plan(read("providers: []"), prune=True)).changes == ()


async def test_what_is_no_longer_as_shown_is_not_applied(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    change = read("providers: [{name: acme, models: [{modelId: b, displayName: Better}]}]")
    shown = await service.plan(change)
    await service.apply(read("providers: [{name: acme, models: [{modelId: b, displayName: Meanwhile}]}]"))
    with pytest.raises(Conflict, match="has changed since the plan was shown: nothing was applied"):
        await service.apply(change, shown=shown)
    assert await fetch(database, "SELECT display_name FROM llm_models WHERE model_id = 'b'") == [("Meanwhile",)]
    # A change of something else does not matter.
    shown = await service.plan(change)
    await service.apply(read("settings: {other: 1}"))
    assert (await service.apply(change, shown=shown)).changes


async def test_two_at_once_take_turns(service: ConfigurationService, database: Database, read: Loads) -> None:
    documents = [read(ACME.replace("displayName: Acme", f"displayName: Acme {n}")) for n in range(4)]
    await asyncio.gather(*(service.apply(document) for document in documents))
    assert await fetch(database, "SELECT count(*) FROM llm_models") == [(2,)]


async def test_an_edit_through_the_api_at_the_same_time_is_neither_lost_nor_a_deadlock(
    service: ConfigurationService, database: Database, read: Loads
) -> None:
    await service.apply(read(ACME))
    holder = SnapshotHolder(database)
    await holder.refresh()
    catalog = CatalogService(database, holder)
    model = holder.current.model_by_ref("acme:b")
    assert model is not None
    text = "providers: [{name: acme, limits: {requestsPerMinute: %d}, models: [{modelId: b, displayName: N%d}]}]"
    for number in range(1, 6):
        await asyncio.gather(
            service.apply(read(text % (number, number))),
            catalog.update_model(model.id, UpdateModel(description=f"D{number}", status=LlmModelStatus.INACTIVE)),
        )
    rows = await fetch(database, "SELECT display_name, description FROM llm_models WHERE model_id = 'b'")
    assert rows == [("N5", "D5")]

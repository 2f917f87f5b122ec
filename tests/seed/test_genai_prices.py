"""The seed from the installed genai-prices data: what is taken of it, and the whole of it in a real database."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from app.db.pool import Database
from seed import service
from seed.genai_prices import plain_url, prices_in_force, token_price, without_float_noise
from seed.plan import Outcome
from tests.seed.test_reference import execute, fetch, revision

AT = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
MODEL_COUNT = sum(len(provider.models) for provider in providers)


def price(**prices: Any) -> dict[str, Any]:
    return {name: Decimal(value) if isinstance(value, str) else value for name, value in prices.items()}


def model(*prices: ConditionalPrice) -> ModelInfo:
    return ModelInfo(id="m", match=ClauseEquals("m"), prices=list(prices))


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (price(input_mtok="0.150"), "0.15"),
        (price(input_mtok="0"), "0"),
        (price(output_mtok="1"), None),
        (price(), None),
        (price(input_mtok=TieredPrices(Decimal("1.25"), [Tier(200_000, Decimal("2.5"))])), "1.25"),
        (price(input_mtok="1", requests_kcount="12"), None),
        (price(input_mtok="0.18000000000000002"), "0.18"),
        (price(input_mtok="0.0833333333333333"), None),
    ],
)
def test_a_price_is_a_plain_rate_or_unknown(prices: dict[str, Any], expected: str | None) -> None:
    assert token_price(prices, "input_mtok") == expected


def test_output_with_a_rate_of_its_own_for_reasoning_is_unknown() -> None:
    assert token_price(price(output_mtok="8", output_reasoning_mtok="3"), "output_mtok") is None
    assert token_price(price(output_mtok="8", output_reasoning_mtok="8"), "output_mtok") == "8"


def test_the_last_price_that_has_started_is_in_force_at_any_hour() -> None:
    dated = model(
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        ConditionalPrice(StartDateConstraint(date(2026, 11, 20)), prices=ModelPrice(input_mtok=Decimal(2))),
        ConditionalPrice(StartDateConstraint(date(2026, 11, 21)), prices=ModelPrice(input_mtok=Decimal(3))),
        ConditionalPrice(
            TimeOfDateConstraint(time_of_day(1, tzinfo=UTC), time_of_day(4, tzinfo=UTC)),
            prices=ModelPrice(input_mtok=Decimal(4)),
        ),
    )
    assert prices_in_force(dated, AT) == {"input_mtok": Decimal(2)}
    assert prices_in_force(dated, AT.replace(hour=12)) == {"input_mtok": Decimal(2)}


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        (r"https://api\.avian\.io", "https://api.avian.io"),
        (r"https://api\.arcee\.ai(?:/|$)", "https://api.arcee.ai"),
        (r"https://router\.huggingface\.co/fireworks-ai", "https://router.huggingface.co/fireworks-ai"),
        (r"https://(.*\.)?googleapis\.com", None),
        (r"https://api\.moonshot\.", None),
        (r"https://api\.cohere\.(?:ai|com)", None),
        (r"https://bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com(/|$)", None),
    ],
)
def test_only_a_pattern_for_one_address_is_a_base_url(pattern: str, url: str | None) -> None:
    assert plain_url(pattern) == url


async def test_the_whole_of_the_data_is_seeded_in_seconds_and_a_second_run_writes_nothing(database: Database) -> None:
    started = time.perf_counter()
    await service.seed_genai_prices(database, at=AT)
    assert time.perf_counter() - started < 10
    assert await fetch(database, "SELECT count(*) FROM llm_providers") == [(len(providers),)]
    assert await fetch(database, "SELECT count(*) FROM llm_models") == [(MODEL_COUNT,)]
    limits = "SELECT DISTINCT max_parallel_requests, requests_per_minute, tokens_per_minute FROM llm_providers"
    assert await fetch(database, limits) == [(1, 60, None)]
    before = await revision(database)
    second = await service.seed_genai_prices(database, at=AT)
    assert second.total(Outcome.UNCHANGED) == len(second.actions)
    assert await revision(database) == before


async def test_every_row_says_what_the_data_says(database: Database) -> None:
    await service.seed_genai_prices(database, at=AT)
    rows = {
        (provider, model_id): row
        for provider, model_id, *row in await fetch(
            database,
            "SELECT p.name, m.model_id, m.display_name, m.description, m.context_window, m.status::text,"
            " m.cost_input_per_million, m.cost_output_per_million"
            " FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id",
        )
    }
    unknown = 0
    for provider in providers:
        name = "xai" if provider.id == "x-ai" else provider.id
        for entry in provider.models:
            display_name, description, context_window, status, cost_input, cost_output = rows[name, entry.id]
            assert display_name == (entry.name or entry.id)
            assert (description or "") == (entry.description or "").strip()
            assert context_window == entry.context_window
            assert status == ("DEPRECATED" if entry.deprecated else "ACTIVE")
            prices = prices_in_force(entry, AT)
            for stored, key in ((cost_input, "input_mtok"), (cost_output, "output_mtok")):
                given = getattr(prices.get(key), "base", prices.get(key))
                if stored is None:
                    unknown += 1
                    assert given is None or token_price(prices, key) is None
                else:
                    assert given is not None
                    assert stored == without_float_noise(given)
    assert unknown > 0


async def test_nothing_said_of_a_price_is_unknown_and_never_zero(database: Database) -> None:
    await service.seed_genai_prices(database, at=AT)
    said_zero = sum(
        token_price(prices_in_force(entry, AT), key) == "0"
        for provider in providers
        for entry in provider.models
        for key in ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    )
    assert await fetch(database, "SELECT count(*) FROM model_prices WHERE price_per_million = 0") == [(said_zero,)]
    assert await fetch(
        database, "SELECT DISTINCT cost_input_per_million FROM llm_models WHERE model_id LIKE '%:free'"
    ) == [(None,)]


async def test_cache_prices_are_dated_rows_of_their_units(database: Database) -> None:
    await service.seed_genai_prices(database, at=AT)
    assert await fetch(
        database,
        "SELECT unit::text, price_per_million FROM model_prices x JOIN llm_models m ON m.id = x.model_id"
        " JOIN llm_providers p ON p.id = m.provider_id"
        " WHERE p.name = 'anthropic' AND m.model_id = 'claude-3-5-haiku-latest' ORDER BY x.unit",
    ) == [
        ("INPUT_TOKENS", Decimal("0.8")),
        ("OUTPUT_TOKENS", Decimal("4")),
        ("CACHE_READ_TOKENS", Decimal("0.08")),
        ("CACHE_WRITE_TOKENS", Decimal("1")),
    ]


async def test_the_reference_keeps_its_limits_and_names_and_takes_current_prices(database: Database) -> None:
    await service.seed_reference(database)
    await execute(database, "UPDATE llm_models SET cost_output_per_million = 7 WHERE model_id = 'grok-3-mini-fast'")
    await service.seed_genai_prices(database, at=AT)
    assert await fetch(database, "SELECT count(*) FROM llm_providers") == [(len(providers),)]
    assert await fetch(
        database,
        "SELECT p.requests_per_minute, p.base_url, m.display_name, m.cost_input_per_million, m.cost_output_per_million,"
        " m.is_default FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id"
        " WHERE p.name = 'xai' AND m.model_id = 'grok-3-mini-fast'",
    ) == [(30, "https://api.x.ai/v1", "Grok 3 Mini Fast", Decimal("0.6"), Decimal("7"), True)]
    before = await revision(database)
    await service.seed_reference(database)
    await service.seed_genai_prices(database, at=AT)
    assert await revision(database) == before


async def test_an_operators_cache_price_is_kept(database: Database) -> None:
    await service.seed_genai_prices(database, at=AT)
    await execute(
        database,
        "INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)"
        " SELECT 'own', m.id, 'CACHE_READ_TOKENS', 0.5, clock_timestamp() FROM llm_models m"
        " JOIN llm_providers p ON p.id = m.provider_id WHERE p.name = 'openai' AND m.model_id = 'gpt-4o'",
    )
    done = await service.seed_genai_prices(database, at=AT)
    assert [action.item.identity.key for action in done.actions if action.outcome is Outcome.KEPT] == [
        "default/openai:gpt-4o#CACHE_READ_TOKENS"
    ]
    assert await fetch(
        database,
        "SELECT count(*) FROM model_prices WHERE unit = 'CACHE_READ_TOKENS' AND price_per_million = 0.5 AND id = 'own'",
    ) == [(1,)]

"""Parameter rules, timeouts, dated prices and the state of limits, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db.pool import Database
from app.limits.repository import claim_requests
from tests.app.api.test_catalog import model, provider
from tests.serving import Api

SETTINGS = """parameterRules allowsUnknownParameters connectTimeoutSeconds readTimeoutSeconds totalTimeoutSeconds"""
UPDATE = f"""
mutation($id: ID!, $input: UpdateLlmModelInput!) {{
  updateLlmModel(id: $id, input: $input) {{
    __typename ... on LlmModel {{ {SETTINGS} }} ... on Error {{ code message path }}
  }}
}}"""
SET_PRICE = """
mutation($modelId: ID!, $unit: UsageUnit!, $price: Decimal, $at: DateTime) {
  setModelPrice(modelId: $modelId, unit: $unit, pricePerMillion: $price, effectiveAt: $at) {
    __typename
    ... on ModelPrice { id unit pricePerMillion currency effectiveAt }
    ... on Error { code message path }
  }
}"""
RULES = [{"name": "temperature", "type": "number", "minimum": 0, "maximum": 1, "default": 0.5}]
NOTHING = dict.fromkeys(("connectTimeoutSeconds", "readTimeoutSeconds", "totalTimeoutSeconds"), None)


@pytest.fixture
async def model_id(api: Api) -> str:
    return await model(api, await provider(api), costInputPerMillion="2.5", costOutputPerMillion="10")


async def update(api: Api, model_id: str, **fields: Any) -> dict[str, Any]:
    data = await api.data(UPDATE, {"id": model_id, "input": fields})
    found: dict[str, Any] = data["updateLlmModel"]
    return found


async def settings(api: Api, model_id: str) -> dict[str, Any]:
    data = await api.data(f"query($id: ID!) {{ llmModel(id: $id) {{ {SETTINGS} }} }}", {"id": model_id})
    found: dict[str, Any] = data["llmModel"]
    return found


async def test_a_model_has_no_rules_and_timeouts_of_its_own_until_they_are_given(api: Api, model_id: str) -> None:
    plain = {"parameterRules": None, "allowsUnknownParameters": False, **NOTHING}
    assert await settings(api, model_id) == plain
    given = {
        "parameterRules": RULES,
        "allowsUnknownParameters": True,
        "connectTimeoutSeconds": 1.5,
        "readTimeoutSeconds": 20,
        "totalTimeoutSeconds": 86400,
    }
    assert await update(api, model_id, **given) == {"__typename": "LlmModel", **given}
    assert await settings(api, model_id) == given
    cleared = await update(api, model_id, parameterRules=None, allowsUnknownParameters=False, **NOTHING)
    assert cleared == {"__typename": "LlmModel", **plain}
    other = await model(api, await provider(api, "acme"), "m", **given)
    assert await settings(api, other) == given


@pytest.mark.parametrize(
    ("fields", "path", "bound"),
    [
        ({"connectTimeoutSeconds": 0}, "connectTimeoutSeconds", "above 0, at most 86400"),
        ({"readTimeoutSeconds": -1.5}, "readTimeoutSeconds", "above 0"),
        ({"totalTimeoutSeconds": 86400.5}, "totalTimeoutSeconds", "at most 86400"),
        ({"allowsUnknownParameters": None}, "allowsUnknownParameters", "not null"),
        ({"parameterRules": {"name": "x"}}, "parameterRules", "a list of rules"),
        ({"parameterRules": [{"name": "x", "type": "colour"}]}, "parameterRules", "a list of rules"),
        ({"parameterRules": [{"name": "x", "step": 1}]}, "parameterRules", "a list of rules"),
        (
            {"parameterRules": [RULES[0], {"name": "x", "minimum": 2, "maximum": 1}]},
            "parameterRules[1].maximum",
            "at least the minimum, 2",
        ),
    ],
)
async def test_settings_out_of_bounds_name_field_and_bound_and_change_nothing(
    api: Api, model_id: str, fields: dict[str, Any], path: str, bound: str
) -> None:
    refused = await update(api, model_id, displayName="Changed", **fields)
    assert (refused["__typename"], refused["path"]) == ("ValidationError", [path]), refused
    assert bound in refused["message"]
    assert (await settings(api, model_id))["parameterRules"] is None


async def test_rules_hold_for_what_is_submitted(api: Api, model_id: str) -> None:
    await update(api, model_id, parameterRules=RULES)
    submit = """mutation($parameters: JSON) { submitRequest(input: {model: "openai:gpt-4o", input: "Hello",
      parameters: $parameters}) { ... on ModelRequest { parameters } ... on Error { path } } }"""
    for parameters, expected in (
        ({}, {"parameters": {"temperature": 0.5}}),
        ({"temperature": 1.5}, {"path": ["parameters.temperature"]}),
        ({"top_k": 3}, {"path": ["parameters.top_k"]}),
    ):
        assert (await api.data(submit, {"parameters": parameters}))["submitRequest"] == expected


# Prices ---------------------------------------------------------------------


async def prices(api: Api, model_id: str) -> dict[str, str | None]:
    data = await api.data(
        "query($id: ID!) { llmModel(id: $id) { prices { unit pricePerMillion currency } } }", {"id": model_id}
    )
    return {price["unit"]: price["pricePerMillion"] for price in data["llmModel"]["prices"]}


async def set_price(api: Api, model_id: str, unit: str, price: str | None, at: datetime | None = None) -> Any:
    variables = {"modelId": model_id, "unit": unit, "price": price, "at": at.isoformat() if at else None}
    return (await api.data(SET_PRICE, variables))["setModelPrice"]


async def test_a_price_of_another_unit_is_in_force_at_once_and_is_followed_by_others(api: Api, model_id: str) -> None:
    assert await prices(api, model_id) == {"INPUT_TOKENS": "2.5", "OUTPUT_TOKENS": "10"}
    first = await set_price(api, model_id, "CACHE_READ_TOKENS", "1.25")
    assert (first["__typename"], first["unit"], first["pricePerMillion"]) == (
        "ModelPrice",
        "CACHE_READ_TOKENS",
        "1.25",
    ), first
    listed = {"INPUT_TOKENS": "2.5", "OUTPUT_TOKENS": "10"}
    assert await prices(api, model_id) == listed | {"CACHE_READ_TOKENS": "1.25"}
    estimate = '{ estimateCost(model: "openai:gpt-4o", usage: {inputTokens: 1000, cacheReadTokens: 1000}) { total } }'
    assert (await api.data(estimate))["estimateCost"] == {"total": "0.00125"}
    await set_price(api, model_id, "CACHE_READ_TOKENS", "0.00875")
    assert await prices(api, model_id) == listed | {"CACHE_READ_TOKENS": "0.00875"}
    await set_price(api, model_id, "CACHE_READ_TOKENS", None)
    assert await prices(api, model_id) == listed | {"CACHE_READ_TOKENS": None}


async def test_a_price_of_a_later_date_is_not_in_force_before_it(api: Api, model_id: str) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await set_price(api, model_id, "IMAGES", "40000", tomorrow)
    assert "IMAGES" not in await prices(api, model_id)
    query = """query($at: DateTime) { estimateCost(model: "openai:gpt-4o", usage: {images: 3}, at: $at) {
      total lines { unit quantity unitPrice amount } } }"""
    assert (await api.data(query, {"at": (tomorrow + timedelta(days=1)).isoformat()}))["estimateCost"] == {
        "total": "0.12",
        "lines": [{"unit": "IMAGES", "quantity": "3", "unitPrice": "40000", "amount": "0.12"}],
    }
    refused = await api.post(query)
    assert refused["errors"][0]["extensions"] == {"code": "PRICE_UNKNOWN", "path": ["model"]}


async def test_a_price_that_comes_into_force_is_shown_though_the_catalog_stays(
    api: Api, model_id: str, database: Database
) -> None:
    async with database.connection() as connection:
        soon = await connection.fetchval("SELECT clock_timestamp() + interval '0.3 seconds'")
    await set_price(api, model_id, "SEARCHES", "2000", soon)
    while "SEARCHES" not in (found := await prices(api, model_id)):
        assert datetime.now(UTC) < soon + timedelta(seconds=10)
    assert found["SEARCHES"] == "2000"


async def test_prices_that_cannot_be_set_are_typed_errors(api: Api, model_id: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await set_price(api, model_id, "SECONDS", "100", at)
    for arguments, typename, path in (
        ((model_id, "INPUT_TOKENS", "1"), "ValidationError", ["unit"]),
        ((model_id, "OUTPUT_TOKENS", "1"), "ValidationError", ["unit"]),
        ((model_id, "IMAGES", "-1"), "ValidationError", ["pricePerMillion"]),
        ((model_id, "IMAGES", "0.00000000001"), "ValidationError", ["pricePerMillion"]),
        (("none", "IMAGES", "1"), "NotFound", ["modelId"]),
        ((model_id, "SECONDS", "200", at), "Conflict", ["effectiveAt"]),
    ):
        refused = await set_price(api, *arguments)
        assert (refused["__typename"], refused["path"]) == (typename, path), refused


async def test_every_count_is_estimated_and_seconds_are_exact(api: Api, model_id: str) -> None:
    await set_price(api, model_id, "SECONDS", "0.0000000001", None)
    query = """query($seconds: Decimal!) { estimateCost(model: "openai:gpt-4o", usage: {seconds: $seconds}) {
      total } }"""
    assert (await api.data(query, {"seconds": "1.25"}))["estimateCost"] == {"total": "0.000000000000000125"}
    for seconds in ("-1", "1.001", "10000000000", "1." + "0" * 50 + "1", "1e59"):
        body = await api.post(query, {"seconds": seconds})
        assert body["errors"][0]["extensions"]["code"] == "VALIDATION", body
    contradiction = '{ estimateCost(model: "openai:gpt-4o", usage: {outputTokens: 1, reasoningTokens: 2}) { total } }'
    assert (await api.post(contradiction))["errors"][0]["extensions"]["code"] == "VALIDATION"


# Limits ---------------------------------------------------------------------


async def test_the_state_of_limits_is_read_anew_each_time(api: Api, model_id: str, database: Database) -> None:
    await provider(api, "idle")
    query = """{ llmProviders { id name limits { running waiting oldestWaitingAt startsInWindow tokensInWindow
      consecutiveFailures circuitOpenUntil } } }"""
    nothing = {
        "running": 0,
        "waiting": 0,
        "oldestWaitingAt": None,
        "startsInWindow": 0,
        "tokensInWindow": 0,
        "consecutiveFailures": 0,
        "circuitOpenUntil": None,
    }
    before = (await api.data(query))["llmProviders"]
    assert [found["limits"] for found in before] == [nothing, nothing]
    submit = """mutation { submitRequest(input: {model: "openai:gpt-4o", input: "Hello"}) {
      ... on ModelRequest { createdAt } } }"""
    await api.data(submit)
    oldest_waiting = (await api.data(submit))["submitRequest"]["createdAt"]
    (openai,) = [found["id"] for found in before if found["name"] == "openai"]
    async with database.connection() as connection:
        claim = await claim_requests(connection, openai, worker_id="w", capacity=8, lease_seconds=60)
        assert claim is not None
        (claimed,) = claim.requests
        now = {found["name"]: found["limits"] for found in (await api.data(query))["llmProviders"]}
        assert now["idle"] == nothing
        assert now["openai"] == nothing | {
            "running": 1,
            "waiting": 1,
            "oldestWaitingAt": oldest_waiting,
            "startsInWindow": 1,
            "tokensInWindow": claimed.reserved_tokens,
        }
        await connection.execute(
            """UPDATE limit_states SET consecutive_failures = 5, window_milliseconds = 1, delivery_milliseconds = 0,
                                       circuit_open_until = '2026-01-01T00:00:00Z' WHERE provider_id = $1""",
            openai,
        )
    now = {found["name"]: found["limits"] for found in (await api.data(query))["llmProviders"]}
    assert (now["openai"]["startsInWindow"], now["openai"]["tokensInWindow"]) == (0, 0)
    assert (now["openai"]["consecutiveFailures"], now["openai"]["circuitOpenUntil"]) == (5, "2026-01-01T00:00:00.000Z")

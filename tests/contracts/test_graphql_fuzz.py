"""Random operations over the whole schema: no 5xx, no error that nobody foresaw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import Mode, from_schema, nodes

from app.schema import print_sdl
from tests.app.api.test_catalog import model, provider
from tests.serving import Api, serve_api

MEDIA_TYPE = "application/graphql-response+json"
CUSTOM_SCALARS = {
    "Decimal": st.one_of(st.decimals(), st.integers(), st.sampled_from(["1e9", "-0", "1.00000000001"]))
    .map(str)
    .map(nodes.String),
    "DateTime": st.one_of(
        st.datetimes().map(lambda value: value.isoformat() + "Z"), st.just("9999-12-31T23:59:59-23:00"), st.text()
    ).map(nodes.String),
    "JSON": st.one_of(
        st.integers().map(nodes.Int),
        st.floats(allow_nan=False, allow_infinity=False).map(nodes.Float),
        st.text(st.characters(codec="utf-8")).map(nodes.String),
        st.booleans().map(nodes.Boolean),
        st.just(nodes.Object([])),
    ),
}


@pytest.fixture
async def api(database_dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with serve_api(
        database_dsn, tmp_path, max_query_complexity=10**9, max_query_aliases=10**6, max_query_depth=50
    ) as served:
        await model(served, await provider(served), costInputPerMillion="1", costOutputPerMillion="2")
        yield served


async def check(api: Api, body: dict[str, Any]) -> None:
    response = await api.http.post("/graphql", json=body, headers={"accept": MEDIA_TYPE})
    assert response.status_code in (200, 400), response.text
    answered = response.json()
    for error in answered.get("errors", []):
        assert error.get("extensions", {}).get("code") != "INTERNAL", (body, error)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=from_schema(print_sdl(), custom_scalars=CUSTOM_SCALARS))
async def test_valid_operations_never_meet_an_internal_error(api: Api, query: str) -> None:
    await check(api, {"query": query})


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=from_schema(print_sdl(), custom_scalars=CUSTOM_SCALARS, mode=Mode.NEGATIVE))
async def test_invalid_operations_never_meet_an_internal_error(api: Api, query: str) -> None:
    await check(api, {"query": query})


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
OPERATIONS = [
    "mutation($a: String!, $v: JSON!) { setSystemSetting(key: $a, value: $v) { __typename } }",
    """mutation($a: String!, $v: JSON) { submitRequest(input: {model: "openai:gpt-4o", input: $v, idempotencyKey: $a,
       parameters: $v, metadata: $v}) { __typename ... on Error { message } } }""",
    """mutation($a: String!, $v: JSON) { submitRequest(input: {model: "openai:gpt-4o", parameters: $v,
       messages: [{role: USER, content: $a}]}) { __typename ... on ModelRequest { parameters cost { total } } } }""",
    "query($a: String!) { searchModels(query: $a) { totalCount } }",
    "query($a: String!) { llmModels(after: $a) { totalCount } requests(after: $a) { totalCount } }",
    "query($a: String!) { llmModel(ref: $a) { id } }",
    "query($a: ID!) { llmModel(id: $a) { id } request(id: $a) { id } }",
    "mutation($a: String!) { createAccessToken(input: {name: $a, role: READER}) { __typename } }",
    "mutation($a: String!) { createLlmProvider(input: {name: $a, displayName: $a, baseUrl: $a}) { __typename } }",
    "query($a: Int) { llmModels(first: $a) { totalCount } requests(first: $a) { nodes { id } } }",
    "query($a: Decimal) { llmModels(filter: {maxCostInputPerMillion: $a}) { totalCount } }",
    "query($a: DateTime) { requests(filter: {createdAfter: $a, createdBefore: $a}) { nodes { id } } }",
    """query($a: Int!) { estimateCost(model: "openai:gpt-4o", usage: {inputTokens: $a, cacheReadTokens: $a}) {
       total lines { amount } } }""",
    """query($a: Decimal!) { estimateCost(model: "openai:gpt-4o", usage: {seconds: $a}) { total lines { amount } } }""",
    """mutation($a: String!, $v: JSON) { submitRequests(inputs: [{model: "openai:gpt-4o", input: $v, fallbacks: [$a],
       stream: true, idempotencyKey: $a}, {model: $a, input: $v, metadata: $v}]) { __typename
       ... on SubmittedRequests { requests { id } } } }""",
    """mutation($a: ID!, $v: Decimal) { setModelPrice(modelId: $a, unit: IMAGES, pricePerMillion: $v) {
       __typename } }""",
    """mutation($a: String!, $v: JSON) { createLlmProvider(input: {name: $a, displayName: $a}) { __typename
       ... on LlmProvider { limits { running } } } updateLlmModel(id: "openai:gpt-4o", input: {parameterRules: $v})
       { __typename ... on Error { message } } }""",
    """mutation($a: Float, $v: JSON) { createLlmModel(input: {providerId: "x", modelId: "m", displayName: "m",
       parameterRules: $v, connectTimeoutSeconds: $a, readTimeoutSeconds: $a}) { __typename
       ... on Error { path } } }""",
]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=st.sampled_from(OPERATIONS), a=JSON_VALUES, v=JSON_VALUES)
async def test_no_variable_leads_to_an_internal_error(api: Api, query: str, a: Any, v: Any) -> None:
    await check(api, {"query": query, "variables": {"a": a, "v": v}})


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
async def test_no_body_leads_to_a_server_error(api: Api, body: bytes) -> None:
    response = await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400

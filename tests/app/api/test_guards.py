"""Each limit refuses with its name and value; what is within the limits runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from graphql import get_introspection_query

from tests.app.api.test_catalog import model, provider
from tests.serving import Api, serve_api


@pytest.fixture
async def narrow(database_dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with serve_api(
        database_dsn, tmp_path, max_query_depth=4, max_query_aliases=3, max_query_complexity=500
    ) as served:
        yield served


async def refused(api: Api, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    body = await api.post(query, variables)
    assert "data" not in body, body
    error = body["errors"][0]
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED", error
    extensions: dict[str, Any] = error["extensions"]
    assert str(extensions["value"]) in error["message"]
    assert str(extensions["maximum"]) in error["message"]
    return extensions


async def test_depth_is_limited_also_through_fragments(narrow: Api) -> None:
    assert "data" in await narrow.post("{ llmModels(first: 1) { nodes { provider { name } } } }")
    for query in (
        "{ llmModels(first: 1) { nodes { provider { models { id } } } } }",
        """{ llmModels(first: 1) { ...A } } fragment A on LlmModelConnection { nodes { ...B } }
           fragment B on LlmModel { provider { ... on LlmProvider { models { id } } } }""",
    ):
        assert (await refused(narrow, query))["limit"] == "depth"


async def test_aliases_are_limited_however_fragments_multiply_them(narrow: Api) -> None:
    assert "data" in await narrow.post("{ a: __typename b: __typename c: __typename }")
    extensions = await refused(
        narrow,
        "{ ...A x: llmProviders { ...B } y: llmProviders { ...B } } "
        "fragment A on Query { a: __typename } fragment B on LlmProvider { b: name }",
    )
    assert extensions == {"code": "LIMIT_EXCEEDED", "limit": "number of aliases", "value": 5, "maximum": 3}


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ llmModels(first: 100) { nodes { id modelId displayName status isDefault } } }", {}),
        ("query($n: Int) { llmModels(first: $n) { nodes { id modelId displayName status isDefault } } }", {"n": 100}),
        ("query($n: Int = 100) { llmModels(first: $n) { nodes { id modelId displayName status isDefault } } }", {}),
        ("{ llmModels { edges { node { id modelId displayName status isDefault description ref } cursor } } }", {}),
        ("{ llmProviders { models { id provider { id } } } }", {}),
    ],
)
async def test_complexity_counts_fields_times_the_sizes_of_lists(
    narrow: Api, query: str, variables: dict[str, Any]
) -> None:
    assert (await refused(narrow, query, variables))["limit"] == "complexity"


async def test_a_small_page_of_the_same_fields_is_within_the_limit(narrow: Api) -> None:
    query = "query($n: Int) { llmModels(first: $n) { nodes { id modelId displayName status isDefault } } }"
    assert "data" in await narrow.post(query, {"n": 10})


async def test_the_default_limits_let_the_whole_catalog_be_read(api: Api) -> None:
    await model(api, await provider(api))
    query = """{ llmProviders { id name displayName maxParallelRequests requestsPerMinute isEnabled createdAt updatedAt
      models { id modelId displayName costInputPerMillion costOutputPerMillion status isDefault createdAt updatedAt
        provider { id name } } } systemSettings { key value } }"""
    assert len((await api.data(query))["llmProviders"]) == 1


async def test_tokens_are_limited(api: Api) -> None:
    assert (await refused(api, "{ " + "__typename " * 4000 + "}"))["limit"] == "number of tokens"


async def test_a_field_repeated_without_end_is_refused_before_it_is_validated(api: Api) -> None:
    assert (await refused(api, "{ " + "__typename " * 3000 + "}"))["limit"] == "number of fields '__typename'"


async def test_fragments_that_multiply_each_other_are_measured_in_no_time(api: Api) -> None:
    doubling = "".join(f" fragment f{n} on Query {{ {f'...f{n + 1} ' * 20} }}" for n in range(40))
    extensions = await refused(api, "{ ...f0 }" + doubling + " fragment f40 on Query { __typename }")
    assert extensions["limit"] == "complexity"
    doubling = "".join(
        f" fragment f{n} on LlmModelConnection {{ ...f{n + 1} ... on LlmModelConnection {{ ...f{n + 1} }} }}"
        for n in range(30)
    )
    query = "query($n: Int) { llmModels(first: $n) { ...f0 } }" + doubling
    extensions = await refused(api, query + " fragment f30 on LlmModelConnection { totalCount }", {"n": 10})
    assert extensions["limit"] == "complexity"


@pytest.mark.parametrize("digits", [30, 3000, 5000])
async def test_a_number_of_many_digits_is_no_internal_error(api: Api, digits: int) -> None:
    number = "9" * digits
    for query in (
        f"{{ llmModels(first: {number}) {{ nodes {{ id }} }} }}",
        f"query($n: Int = {number}) {{ llmModels(first: $n) {{ nodes {{ id }} }} }}",
        f"{{ llmModels(filter: {{minContextWindow: {number}}}) {{ totalCount }} }}",
        f"{{ llmModels(filter: {{maxCostInputPerMillion: {number}}}) {{ totalCount }} }}",
        f"{{ llmModel(id: {number}) {{ id }} }}",
        f'mutation {{ setSystemSetting(key: "a", value: {number}) {{ __typename }} }}',
        f'mutation {{ setSystemSetting(key: "a", value: {number}.5e{number}) {{ __typename }} }}',
    ):
        body = await api.post(query)
        assert all("internal error" not in error["message"] for error in body.get("errors", [])), (query[:60], body)


async def test_fragments_nested_without_end_are_refused(api: Api) -> None:
    nested = "{ " + "... { " * 60 + "__typename" + " }" * 60 + " }"
    assert (await refused(api, nested))["limit"] == "nesting of fragments"


async def test_fragments_in_a_circle_are_invalid(api: Api) -> None:
    body = await api.post("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A __typename }")
    assert "Cannot spread fragment" in body["errors"][0]["message"]


async def test_a_document_nested_too_deeply_to_parse_is_refused(api: Api) -> None:
    body = await api.post("{ a(b: " + "[" * 1900 + "]" * 1900 + ") }")
    assert "data" not in body
    assert "internal" not in body["errors"][0]["message"]


async def test_introspection_runs_by_default_and_can_be_turned_off(api: Api, database_dsn: str, tmp_path: Path) -> None:
    assert "__schema" in await api.data(get_introspection_query())
    async with serve_api(database_dsn, tmp_path, introspection=False) as closed:
        body = await closed.post("{ __schema { types { name } } }")
        assert "introspection has been disabled" in body["errors"][0]["message"]
        misspelt = await closed.post("{ llmProvider(id: 1) { nam } }")
        assert "Did you mean" not in misspelt["errors"][0]["message"]
        assert await closed.data("{ __typename llmProviders { __typename } }") == {
            "__typename": "Query",
            "llmProviders": [],
        }


async def test_one_operation_of_several_is_run_by_name(api: Api) -> None:
    query = "query A { a: __typename } query B { b: __typename }"
    for name, status, expected in (("B", 200, {"b": "Query"}), ("C", 400, None), (None, 400, None)):
        response = await api.http.post(
            "/graphql",
            json={"query": query, "operationName": name},
            headers={"accept": "application/graphql-response+json"},
        )
        assert response.status_code == status
        assert response.json().get("data") == expected


async def test_a_null_character_is_refused_before_it_reaches_the_database(api: Api) -> None:
    mutation = "mutation($name: String!) { createLlmProvider(input: {name: $name, displayName: $name}) { __typename } }"
    body = await api.post(mutation, {"name": "a\0b"})
    assert "U+0000" in body["errors"][0]["message"]
    body = await api.post('{ searchModels(query: "a\\u0000") { totalCount } }')
    assert "U+0000" in body["errors"][0]["message"]

"""The catalog's queries and mutations over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from app.access.records import AccessRole
from tests.serving import Api

CREATE_PROVIDER = """
mutation($input: CreateLlmProviderInput!) {
  createLlmProvider(input: $input) {
    __typename
    ... on LlmProvider { id name displayName maxParallelRequests requestsPerMinute tokensPerMinute isEnabled }
    ... on Error { code message path }
  }
}"""
CREATE_MODEL = """
mutation($input: CreateLlmModelInput!) {
  createLlmModel(input: $input) {
    __typename
    ... on LlmModel { id ref modelId costInputPerMillion costOutputPerMillion isDefault status provider { name } }
    ... on Error { code message path }
  }
}"""
UPDATE_MODEL = """
mutation($id: ID!, $input: UpdateLlmModelInput!) {
  updateLlmModel(id: $id, input: $input) {
    __typename
    ... on LlmModel { displayName costInputPerMillion contextWindow description capabilities }
    ... on Error { code message path }
  }
}"""


async def provider(api: Api, name: str = "openai", **fields: Any) -> str:
    data = await api.data(CREATE_PROVIDER, {"input": {"name": name, "displayName": name.title(), **fields}})
    assert data["createLlmProvider"]["__typename"] == "LlmProvider", data
    return str(data["createLlmProvider"]["id"])


async def model(api: Api, provider_id: str, model_id: str = "gpt-4o", **fields: Any) -> str:
    data = await api.data(
        CREATE_MODEL, {"input": {"providerId": provider_id, "modelId": model_id, "displayName": model_id, **fields}}
    )
    assert data["createLlmModel"]["__typename"] == "LlmModel", data
    return str(data["createLlmModel"]["id"])


async def test_a_provider_and_a_model_are_created_and_read_back(api: Api) -> None:
    created = await api.data(CREATE_PROVIDER, {"input": {"name": "openai", "displayName": "OpenAI"}})
    assert created["createLlmProvider"] | {"id": ""} == {
        "__typename": "LlmProvider",
        "id": "",
        "name": "openai",
        "displayName": "OpenAI",
        "maxParallelRequests": 1,
        "requestsPerMinute": 60,
        "tokensPerMinute": None,
        "isEnabled": True,
    }
    data = await api.data(
        CREATE_MODEL,
        {
            "input": {
                "providerId": created["createLlmProvider"]["id"],
                "modelId": "gpt-4o",
                "displayName": "GPT-4o",
                "costInputPerMillion": "2.50",
                "costOutputPerMillion": 10,
            }
        },
    )
    assert data["createLlmModel"] | {"id": ""} == {
        "__typename": "LlmModel",
        "id": "",
        "ref": "openai:gpt-4o",
        "modelId": "gpt-4o",
        "costInputPerMillion": "2.5",
        "costOutputPerMillion": "10",
        "isDefault": False,
        "status": "ACTIVE",
        "provider": {"name": "openai"},
    }
    for ref in ("openai:gpt-4o", "#/Model/openai/gpt-4o"):
        found = await api.data("query($ref: String) { llmModel(ref: $ref) { id } }", {"ref": ref})
        assert found["llmModel"]["id"] == data["createLlmModel"]["id"]


async def test_an_unknown_cost_is_null(api: Api) -> None:
    await model(api, await provider(api))
    data = await api.data('{ llmModel(ref: "openai:gpt-4o") { costInputPerMillion costOutputPerMillion } }')
    assert data["llmModel"] == {"costInputPerMillion": None, "costOutputPerMillion": None}


@pytest.mark.parametrize("cost", [2.5, "2.5e", "NaN", True, "1e999999"])
async def test_a_cost_that_is_not_exact_is_refused_before_anything_is_written(api: Api, cost: Any) -> None:
    provider_id = await provider(api)
    body = await api.post(
        CREATE_MODEL,
        {"input": {"providerId": provider_id, "modelId": "m", "displayName": "M", "costInputPerMillion": cost}},
    )
    assert "Decimal" in body["errors"][0]["message"]
    assert body["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}


async def test_a_value_out_of_bounds_is_a_validation_error_that_names_it(api: Api) -> None:
    data = await api.data(
        CREATE_PROVIDER, {"input": {"name": "openai", "displayName": "OpenAI", "requestsPerMinute": 0}}
    )
    error = data["createLlmProvider"]
    assert error["__typename"] == "ValidationError"
    assert error["code"] == "VALIDATION"
    assert error["path"] == ["requestsPerMinute"]
    assert error["message"].startswith("requestsPerMinute must be ")
    assert error["message"].endswith("not 0")


async def test_a_second_provider_of_the_same_name_is_a_conflict(api: Api) -> None:
    await provider(api)
    data = await api.data(CREATE_PROVIDER, {"input": {"name": "openai", "displayName": "Again"}})
    assert data["createLlmProvider"]["__typename"] == "Conflict"


async def test_a_model_of_no_provider_is_not_found(api: Api) -> None:
    data = await api.data(CREATE_MODEL, {"input": {"providerId": "nobody", "modelId": "m", "displayName": "M"}})
    assert data["createLlmModel"]["__typename"] == "NotFound"


async def test_an_update_changes_what_is_given_and_clears_what_is_null(api: Api) -> None:
    model_id = await model(
        api, await provider(api), costInputPerMillion="1", contextWindow=1000, capabilities=["vision"]
    )
    data = await api.data(UPDATE_MODEL, {"id": model_id, "input": {"displayName": "New", "contextWindow": None}})
    assert data["updateLlmModel"] == {
        "__typename": "LlmModel",
        "displayName": "New",
        "costInputPerMillion": "1",
        "contextWindow": None,
        "description": None,
        "capabilities": ["vision"],
    }


async def test_null_for_what_cannot_be_null_is_a_validation_error(api: Api) -> None:
    model_id = await model(api, await provider(api))
    data = await api.data(UPDATE_MODEL, {"id": model_id, "input": {"displayName": None}})
    assert data["updateLlmModel"]["__typename"] == "ValidationError"
    assert data["updateLlmModel"]["path"] == ["displayName"]


async def test_a_new_default_replaces_the_old_one(api: Api) -> None:
    provider_id = await provider(api)
    await model(api, provider_id, "a", isDefault=True)
    second = await model(api, provider_id, "b")
    await api.data("mutation($id: ID!) { setDefaultLlmModel(id: $id) { __typename } }", {"id": second})
    data = await api.data("{ llmProviders { models { modelId isDefault } } }")
    assert data["llmProviders"] == [
        {"models": [{"modelId": "a", "isDefault": False}, {"modelId": "b", "isDefault": True}]}
    ]


async def test_a_deprecated_model_stays_readable_and_cannot_be_made_default(api: Api) -> None:
    provider_id = await provider(api)
    old, _ = await model(api, provider_id, "old", isDefault=True), await model(api, provider_id, "new")
    deprecated = await api.data(
        "mutation($id: ID!) { deprecateLlmModel(id: $id) { ... on LlmModel { status isDefault } } }", {"id": old}
    )
    assert deprecated["deprecateLlmModel"] == {"status": "DEPRECATED", "isDefault": False}
    data = await api.data(
        """mutation($id: ID!) { setDefaultLlmModel(id: $id) {
             __typename ... on ModelUnavailable { code alternatives } } }""",
        {"id": old},
    )
    assert data["setDefaultLlmModel"] == {
        "__typename": "ModelUnavailable",
        "code": "MODEL_UNAVAILABLE",
        "alternatives": ["openai:new"],
    }
    again = await api.data(
        "mutation($id: ID!) { reactivateLlmModel(id: $id) { ... on LlmModel { status } } }", {"id": old}
    )
    assert again["reactivateLlmModel"] == {"status": "ACTIVE"}


async def test_deleting_a_provider_deletes_its_models(api: Api) -> None:
    provider_id = await provider(api)
    model_id = await model(api, provider_id)
    data = await api.data(
        "mutation($id: ID!) { deleteLlmProvider(id: $id) { ... on Deleted { id } } }", {"id": provider_id}
    )
    assert data["deleteLlmProvider"] == {"id": provider_id}
    assert await api.data("query($id: ID) { llmModel(id: $id) { id } }", {"id": model_id}) == {"llmModel": None}
    gone = await api.data("mutation($id: ID!) { deleteLlmProvider(id: $id) { __typename } }", {"id": provider_id})
    assert gone["deleteLlmProvider"] == {"__typename": "NotFound"}


async def test_pages_follow_each_other_without_gap_or_repetition(api: Api) -> None:
    provider_id = await provider(api)
    for number in range(7):
        await model(api, provider_id, f"m{number}")
    query = """query($after: String) { llmModels(first: 3, after: $after) {
      totalCount nodes { modelId } edges { cursor node { modelId } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    seen: list[str] = []
    after = None
    for expected in (3, 3, 1):
        page = (await api.data(query, {"after": after}))["llmModels"]
        assert page["totalCount"] == 7
        assert [edge["node"] for edge in page["edges"]] == page["nodes"]
        assert page["pageInfo"]["endCursor"] == page["edges"][-1]["cursor"]
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        assert len(page["nodes"]) == expected
        seen += [node["modelId"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert page["pageInfo"]["hasNextPage"] is False
    assert seen == [f"m{number}" for number in range(7)]


async def test_models_are_filtered_ordered_and_searched(api: Api) -> None:
    provider_id = await provider(api)
    await model(api, provider_id, "dear", costInputPerMillion="10", costOutputPerMillion="20")
    await model(api, provider_id, "cheap", costInputPerMillion="1", costOutputPerMillion="2", contextWindow=8000)
    await model(api, provider_id, "unknown", modelType="EMBEDDING")
    ordered = await api.data("{ llmModels(orderBy: {field: COST_INPUT, direction: DESC}) { nodes { modelId } } }")
    assert [node["modelId"] for node in ordered["llmModels"]["nodes"]] == ["dear", "cheap", "unknown"]
    filtered = await api.data(
        '{ llmModels(filter: {status: ACTIVE, hasPrice: true, maxCostInputPerMillion: "5"}) { nodes { modelId } } }'
    )
    assert filtered["llmModels"]["nodes"] == [{"modelId": "cheap"}]
    found = await api.data('{ searchModels(query: "dea") { totalCount nodes { modelId } } }')
    assert found["searchModels"] == {"totalCount": 1, "nodes": [{"modelId": "dear"}]}


async def test_a_bad_cursor_and_a_bad_size_are_errors_with_a_code(api: Api) -> None:
    for arguments in ('after: "nonsense"', "first: 0", "first: 501"):
        await model(api, await provider(api, f"p{abs(hash(arguments))}"))
        body = await api.post(f"{{ llmModels({arguments}) {{ totalCount }} }}")
        assert body["errors"][0]["extensions"]["code"] == "VALIDATION"


async def test_settings_are_set_read_and_deleted(api: Api) -> None:
    await model(api, await provider(api), "gpt-4o-mini")
    value = {"modelId": "gpt-4o-mini", "providerId": "openai"}
    data = await api.data(
        """mutation($value: JSON!) { setSystemSetting(key: "infra_model_scenario_expansion", value: $value) {
             ... on SystemSetting { id key value } ... on Error { message } } }""",
        {"value": value},
    )
    assert data["setSystemSetting"]["value"] == value
    data = await api.data('{ infraModel(task: "scenario_expansion") { ref } systemSettings { key value } }')
    assert data == {
        "infraModel": {"ref": "openai:gpt-4o-mini"},
        "systemSettings": [{"key": "infra_model_scenario_expansion", "value": value}],
    }
    missing = await api.post('{ infraModel(task: "summarization") { ref } }')
    assert missing["data"] == {"infraModel": None}
    assert missing["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    refused = await api.data(
        'mutation { setSystemSetting(key: "infra_model_x", value: "openai:nothing") { __typename } }'
    )
    assert refused["setSystemSetting"] == {"__typename": "ModelUnavailable"}
    deleted = await api.data('mutation { deleteSystemSetting(key: "infra_model_scenario_expansion") { __typename } }')
    assert deleted["deleteSystemSetting"] == {"__typename": "Deleted"}


@pytest.mark.parametrize("role", [AccessRole.READER, AccessRole.OPERATOR])
async def test_who_may_only_read_is_forbidden_to_change_and_changes_nothing(api: Api, role: AccessRole) -> None:
    provider_id = await provider(api)
    token = await api.token(role)
    before = await api.data("{ llmProviders { id name updatedAt } }", token=token)
    for mutation in (
        'createLlmProvider(input: {name: "x", displayName: "X"})',
        f'deleteLlmProvider(id: "{provider_id}")',
        'setSystemSetting(key: "a", value: 1)',
        'createAccessToken(input: {name: "mine", role: ADMIN})',
    ):
        body = await api.data(f"mutation {{ {mutation} {{ __typename ... on Error {{ code }} }} }}", token=token)
        assert next(iter(body.values())) == {"__typename": "Forbidden", "code": "FORBIDDEN"}
    assert await api.data("{ llmProviders { id name updatedAt } }", token=token) == before
    listing = await api.post("{ accessTokens { id } }", token=token)
    assert listing["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_an_access_token_is_shown_once_and_works(api: Api) -> None:
    data = await api.data(
        """mutation { createAccessToken(input: {name: "ci", role: OPERATOR}) {
             ... on CreatedAccessToken { token accessToken { name role tokenPrefix revokedAt } } } }"""
    )
    created = data["createAccessToken"]
    assert created["accessToken"]["role"] == "OPERATOR"
    assert created["token"].startswith(created["accessToken"]["tokenPrefix"])
    assert await api.data("{ llmProviders { id } }", token=created["token"]) == {"llmProviders": []}
    listed = await api.data("{ accessTokens { name } }")
    assert "ci" in [token["name"] for token in listed["accessTokens"]]


async def test_several_mutations_of_one_request_read_their_own_writes_in_order(api: Api) -> None:
    data = await api.data(
        """mutation {
             a: createLlmProvider(input: {name: "a", displayName: "A"}) { ... on LlmProvider { name models { id } } }
             b: createLlmProvider(input: {name: "b", displayName: "B"}) { ... on LlmProvider { name models { id } } }
           }"""
    )
    assert data == {"a": {"name": "a", "models": []}, "b": {"name": "b", "models": []}}


async def test_a_mutation_invalidates_cached_answers(api: Api) -> None:
    query = "{ llmProviders { name } }"
    assert await api.data(query) == {"llmProviders": []}
    assert await api.data(query) == {"llmProviders": []}
    await provider(api, "a")
    assert await api.data(query) == {"llmProviders": [{"name": "a"}]}

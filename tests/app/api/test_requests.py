"""Requests and estimates over HTTP and the websocket. Nothing here runs them: that is the workers' part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from app.access.records import AccessRole
from tests.app.api.test_catalog import model, provider
from tests.app.api.test_websocket import PROTOCOL, initialise, receive, send
from tests.serving import Api

SUBMIT = """
mutation($input: SubmitRequestInput!) {
  submitRequest(input: $input) {
    __typename
    ... on ModelRequest {
      id status modelRef priority idempotencyKey deadline metadata parameters output outputText
      model { ref } provider { name } usage { inputTokens } cost { total } error { code } attempts { number }
      createdAt startedAt finishedAt
    }
    ... on Error { code message path }
    ... on ModelUnavailable { alternatives }
  }
}"""
MESSAGES = [{"role": "USER", "content": "Hello"}]


async def submit(api: Api, *, token: str | None = None, **fields: Any) -> dict[str, Any]:
    variables = {"input": {"model": "openai:gpt-4o", "messages": MESSAGES, **fields}}
    data = await (api.data(SUBMIT, variables) if token is None else api.data(SUBMIT, variables, token=token))
    submitted: dict[str, Any] = data["submitRequest"]
    return submitted


@pytest.fixture
async def model_id(api: Api) -> str:
    return await model(api, await provider(api), costInputPerMillion="2.5", costOutputPerMillion="10")


async def test_a_request_is_submitted_and_read_back(api: Api, model_id: str) -> None:
    deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    submitted = await submit(
        api, priority=7, deadline=deadline, metadata={"job": 1}, parameters={"temperature": 0.5, "max_tokens": 10}
    )
    assert submitted["__typename"] == "ModelRequest", submitted
    assert submitted["status"] == "PENDING"
    assert submitted["model"] == {"ref": "openai:gpt-4o"}
    assert submitted["provider"] == {"name": "openai"}
    assert submitted["metadata"] == {"job": 1}
    assert submitted["parameters"] == {"temperature": 0.5, "max_tokens": 10}
    assert datetime.fromisoformat(submitted["deadline"]) == datetime.fromisoformat(deadline)
    assert [submitted[name] for name in ("usage", "cost", "error", "startedAt", "finishedAt")] == [None] * 5
    assert submitted["attempts"] == []
    found = await api.data("query($id: ID!) { request(id: $id) { id priority } }", {"id": submitted["id"]})
    assert found["request"] == {"id": submitted["id"], "priority": 7}
    assert await api.data('{ request(id: "none") { id } }') == {"request": None}


async def test_the_model_may_be_named_by_its_id(api: Api, model_id: str) -> None:
    assert (await submit(api, model=model_id))["model"] == {"ref": "openai:gpt-4o"}


async def test_an_idempotency_key_answers_the_first_request_again(api: Api, model_id: str) -> None:
    first = await submit(api, idempotencyKey="k")
    assert (await submit(api, idempotencyKey="k"))["id"] == first["id"]
    other = await submit(api, idempotencyKey="k", messages=[{"role": "USER", "content": "Else"}])
    assert (other["__typename"], other["path"]) == ("Conflict", ["idempotencyKey"])


@pytest.mark.parametrize(
    ("fields", "typename", "path"),
    [
        ({"messages": None}, "ValidationError", ["messages"]),
        ({"input": "both"}, "ValidationError", ["messages"]),
        ({"metadata": [1]}, "ValidationError", ["metadata"]),
        ({"parameters": "x"}, "ValidationError", ["parameters"]),
        ({"parameters": {"temperature": 9}}, "ValidationError", ["parameters.temperature"]),
        ({"deadline": "2020-01-01T00:00:00Z"}, "ValidationError", ["deadline"]),
        ({"model": "openai:none"}, "NotFound", ["model"]),
    ],
)
async def test_a_submission_out_of_bounds_is_a_typed_error(
    api: Api, model_id: str, fields: dict[str, Any], typename: str, path: list[str]
) -> None:
    refused = await submit(api, **fields)
    assert (refused["__typename"], refused["path"]) == (typename, path), refused
    assert (await api.data("{ requests { totalCount } }"))["requests"]["totalCount"] == 0


async def test_a_deprecated_model_is_refused_with_alternatives(api: Api, model_id: str) -> None:
    (other,) = (await api.data("{ llmProviders { id } }"))["llmProviders"]
    await model(api, other["id"], "gpt-5")
    await api.data("mutation($id: ID!) { deprecateLlmModel(id: $id) { __typename } }", {"id": model_id})
    refused = await submit(api)
    assert (refused["__typename"], refused["alternatives"]) == ("ModelUnavailable", ["openai:gpt-5"])


async def test_requests_are_listed_newest_first_in_pages_and_by_status(api: Api, model_id: str) -> None:
    ids = [(await submit(api))["id"] for _ in range(5)]
    query = """query($after: String) { requests(first: 2, after: $after) {
      totalCount nodes { id } edges { cursor } pageInfo { hasNextPage endCursor } } }"""
    seen: list[str] = []
    after = None
    more = True
    while more:
        page = (await api.data(query, {"after": after}))["requests"]
        seen += [node["id"] for node in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert page["totalCount"] == 5
        assert page["edges"][-1]["cursor"] == after
    assert seen == ids[::-1]
    none = await api.data("{ requests(filter: {status: COMPLETED}) { totalCount nodes { id } } }")
    assert none["requests"] == {"totalCount": 0, "nodes": []}
    bad = await api.post('{ requests(after: "nonsense") { totalCount } }')
    assert bad["errors"][0]["extensions"]["code"] == "VALIDATION"


async def test_a_waiting_request_is_cancelled_and_subscribers_see_it(api: Api, model_id: str) -> None:
    request_id = (await submit(api))["id"]
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        await send(
            socket,
            id="1",
            type="subscribe",
            payload={
                "query": "subscription($id: ID!) { requestUpdated(id: $id) { id status model { ref } } }",
                "variables": {"id": request_id},
            },
        )
        first = await receive(socket)
        assert first["payload"]["data"]["requestUpdated"] == {
            "id": request_id,
            "status": "PENDING",
            "model": {"ref": "openai:gpt-4o"},
        }
        data = await api.data(
            "mutation($id: ID!) { cancelRequest(id: $id) { ... on ModelRequest { status } } }", {"id": request_id}
        )
        assert data["cancelRequest"] == {"status": "CANCELLED"}
        second = await receive(socket)
        assert second["payload"]["data"]["requestUpdated"]["status"] == "CANCELLED"
        assert await receive(socket) == {"id": "1", "type": "complete"}
    missing = await api.data('mutation { cancelRequest(id: "none") { __typename } }')
    assert missing["cancelRequest"] == {"__typename": "NotFound"}


async def test_a_subscription_to_no_request_is_an_error(api: Api) -> None:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        query = 'subscription { requestUpdated(id: "none") { id } }'
        await send(socket, id="1", type="subscribe", payload={"query": query})
        refused = await receive(socket)
        errors = refused["payload"] if refused["type"] == "error" else refused["payload"]["errors"]
        assert errors[0]["extensions"]["code"] == "NOT_FOUND"


async def test_an_operator_submits_and_a_reader_reads(api: Api, model_id: str) -> None:
    operator, reader = await api.token(AccessRole.OPERATOR), await api.token(AccessRole.READER)
    submitted = await submit(api, token=operator)
    assert submitted["__typename"] == "ModelRequest"
    assert (await submit(api, token=reader))["__typename"] == "Forbidden"
    found = await api.data("{ requests { nodes { id } } }", token=reader)
    assert found["requests"]["nodes"] == [{"id": submitted["id"]}]


async def test_a_cost_is_estimated_exactly(api: Api, model_id: str) -> None:
    data = await api.data(
        """{ estimateCost(model: "openai:gpt-4o", usage: {inputTokens: 1001, outputTokens: 3, cacheReadTokens: 1}) {
             total currency lines { unit quantity unitPrice amount } } }"""
    )
    assert data["estimateCost"] == {
        "total": "0.0025325",
        "currency": "USD",
        "lines": [
            {"unit": "INPUT_TOKENS", "quantity": "1000", "unitPrice": "2.5", "amount": "0.0025"},
            {"unit": "OUTPUT_TOKENS", "quantity": "3", "unitPrice": "10", "amount": "0.00003"},
            {"unit": "CACHE_READ_TOKENS", "quantity": "1", "unitPrice": "2.5", "amount": "0.0000025"},
        ],
    }


async def test_an_unknown_price_is_an_error_and_never_zero(api: Api) -> None:
    await model(api, await provider(api))
    body = await api.post('{ estimateCost(model: "openai:gpt-4o", usage: {inputTokens: 1}) { total } }')
    assert body["data"] is None
    assert body["errors"][0]["extensions"]["code"] == "PRICE_UNKNOWN"
    assert "INPUT_TOKENS" in body["errors"][0]["message"]


async def test_counts_that_contradict_are_a_validation_error(api: Api, model_id: str) -> None:
    for usage in ("{inputTokens: -1}", "{inputTokens: 1, cacheReadTokens: 2}"):
        body = await api.post(f'{{ estimateCost(model: "openai:gpt-4o", usage: {usage}) {{ total }} }}')
        assert body["errors"][0]["extensions"]["code"] == "VALIDATION"

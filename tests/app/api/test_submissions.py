"""What submitRequest and submitRequests take: kinds of model, fallbacks, batches."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from app.access.records import AccessRole
from tests.app.api.test_catalog import model, provider
from tests.serving import Api

SUBMIT_ALL = """
mutation($inputs: [SubmitRequestInput!]!) {
  submitRequests(inputs: $inputs) {
    __typename
    ... on SubmittedRequests { ids requests { id status model { ref } } }
    ... on Error { code message path }
  }
}"""
SUBMIT = """
mutation($input: SubmitRequestInput!) {
  submitRequest(input: $input) {
    __typename
    ... on ModelRequest { id operation isStreamed fallbacks { ref } }
    ... on Error { code message path }
  }
}"""
HELLO = {"model": "openai:gpt-4o", "messages": [{"role": "USER", "content": "Hello"}]}


@pytest.fixture
async def provider_id(api: Api) -> str:
    provider_id = await provider(api)
    await model(api, provider_id, costInputPerMillion="2.5", costOutputPerMillion="10")
    return provider_id


async def count(api: Api) -> int:
    found = await api.data("{ requests { totalCount } }")
    return int(found["requests"]["totalCount"])


async def test_a_batch_is_submitted_in_order(api: Api, provider_id: str) -> None:
    await model(api, provider_id, "gpt-5")
    inputs = [
        HELLO,
        HELLO | {"model": "openai:gpt-5"},
        HELLO | {"idempotencyKey": "k"},
        HELLO | {"idempotencyKey": "k"},
    ]
    submitted = (await api.data(SUBMIT_ALL, {"inputs": inputs}))["submitRequests"]
    assert submitted["__typename"] == "SubmittedRequests", submitted
    ids = submitted["ids"]
    assert len(set(ids)) == 3
    assert ids[2] == ids[3]
    assert [request["id"] for request in submitted["requests"]] == ids
    assert [request["model"]["ref"] for request in submitted["requests"][:2]] == ["openai:gpt-4o", "openai:gpt-5"]


@pytest.mark.parametrize(
    ("bad", "typename", "path"),
    [
        ({"model": "openai:none"}, "NotFound", ["model"]),
        ({"parameters": {"temperature": 9}}, "ValidationError", ["parameters.temperature"]),
        ({"metadata": [1]}, "ValidationError", ["metadata"]),
        ({"input": "both"}, "ValidationError", ["messages"]),
        ({"idempotencyKey": "k", "metadata": {"a": 1}}, "Conflict", ["idempotencyKey"]),
        ({"fallbacks": ["openai:gpt-4o", "openai:none"]}, "NotFound", ["fallbacks", "1"]),
    ],
)
async def test_a_batch_with_a_refused_input_writes_nothing_and_names_its_place(
    api: Api, provider_id: str, bad: dict[str, Any], typename: str, path: list[str]
) -> None:
    inputs = [HELLO | {"idempotencyKey": "k"}, HELLO, HELLO | bad, HELLO]
    refused = (await api.data(SUBMIT_ALL, {"inputs": inputs}))["submitRequests"]
    assert (refused["__typename"], refused["path"]) == (typename, ["inputs", "2", *path]), refused
    assert await count(api) == 0


async def test_ten_thousand_are_submitted_at_once_and_no_more(api: Api, provider_id: str) -> None:
    query = SUBMIT_ALL.replace("requests { id status model { ref } }", "")
    submitted = (await api.data(query, {"inputs": [HELLO] * 10_000}))["submitRequests"]
    assert len(set(submitted["ids"])) == 10_000
    assert await count(api) == 10_000
    for inputs in ([], [HELLO] * 10_001):
        refused = (await api.data(query, {"inputs": inputs}))["submitRequests"]
        assert (refused["__typename"], refused["path"]) == ("ValidationError", ["inputs"])
    assert await count(api) == 10_000


async def test_who_may_only_read_submits_no_batch(api: Api, provider_id: str) -> None:
    reader = await api.token(AccessRole.READER)
    assert (await api.data(SUBMIT_ALL, {"inputs": [HELLO]}, token=reader))["submitRequests"][
        "__typename"
    ] == "Forbidden"


@pytest.mark.parametrize(
    ("model_type", "value", "operation"),
    [
        ("TEXT", "Hello", "CHAT"),
        ("CODE", "Hello", "CHAT"),
        ("EMBEDDING", "Hello", "EMBEDDING"),
        ("EMBEDDING", ["Hello", "you"], "EMBEDDING"),
        ("RERANK", {"query": "a", "documents": ["b", "c"]}, "RERANK"),
        ("IMAGE", "A cat", "IMAGE"),
        ("VIDEO", {"prompt": "A cat"}, "VIDEO"),
        ("TEXT_TO_SPEECH", {"text": "Hello", "voice": "alloy"}, "SPEECH"),
        ("SPEECH_TO_TEXT", {"audio": base64.b64encode(b"RIFF").decode(), "filename": "a.wav"}, "TRANSCRIPTION"),
        ("MODERATION", ["Hello"], "MODERATION"),
    ],
)
async def test_each_kind_of_model_takes_its_input(
    api: Api, provider_id: str, model_type: str, value: Any, operation: str
) -> None:
    await model(api, provider_id, "other", modelType=model_type)
    data = await api.data(SUBMIT, {"input": {"model": "openai:other", "input": value}})
    assert data["submitRequest"]["__typename"] == "ModelRequest", data
    assert data["submitRequest"]["operation"] == operation
    data = await api.data(SUBMIT, {"input": {"model": "openai:other", "input": {"nonsense": 1}}})
    assert data["submitRequest"]["__typename"] == "ValidationError", data


async def test_fallbacks_and_streaming_are_kept(api: Api, provider_id: str) -> None:
    await model(api, provider_id, "gpt-5")
    fallbacks = ["#/Model/openai/gpt-5", "openai:gpt-4o"]
    data = await api.data(SUBMIT, {"input": HELLO | {"fallbacks": fallbacks, "stream": True}})
    assert data["submitRequest"]["isStreamed"] is True
    assert data["submitRequest"]["fallbacks"] == [{"ref": "openai:gpt-5"}, {"ref": "openai:gpt-4o"}]
    data = await api.data(SUBMIT, {"input": HELLO})
    assert (data["submitRequest"]["isStreamed"], data["submitRequest"]["fallbacks"]) == (False, [])


async def test_a_repeat_answers_the_first_request_though_its_model_is_deprecated(api: Api, provider_id: str) -> None:
    keyed = {"input": HELLO | {"idempotencyKey": "k"}}
    first = (await api.data(SUBMIT, keyed))["submitRequest"]
    (found,) = (await api.data("{ llmModels { nodes { id } } }"))["llmModels"]["nodes"]
    await api.data("mutation($id: ID!) { deprecateLlmModel(id: $id) { __typename } }", found)
    assert (await api.data(SUBMIT, keyed))["submitRequest"]["id"] == first["id"]
    refused = (await api.data(SUBMIT, {"input": HELLO | {"idempotencyKey": "new"}}))["submitRequest"]
    assert refused["__typename"] == "ModelUnavailable"


async def test_a_cursor_that_no_database_can_hold_is_a_validation_error(api: Api) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(["requests", "a\0"]).encode()).decode().rstrip("=")
    body = await api.post("query($after: String) { requests(after: $after) { nodes { id } } }", {"after": cursor})
    assert body["errors"][0]["extensions"] == {"code": "VALIDATION", "path": ["after"]}, body

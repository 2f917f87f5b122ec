"""Reranking, from a client's body to a provider's and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AuthenticationFailed,
    InvalidRequest,
    InvalidResponse,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    TollgateError,
    ValidationError,
)
from app.prices.records import Usage
from app.providers.cohere import CohereAdapter, RerankDialect
from app.providers.operations import RankedDocument, RerankOutput, RerankRequest
from tests.app.providers.calls import ANSWERED, answer, chat, json_values, model_call, rendered

ADAPTER = CohereAdapter()
DIALECT = RerankDialect()
REQUEST = RerankRequest("capital?", ["Bern", "Paris", "Rome"])
ANSWER: dict[str, Any] = {
    "id": "rr1",
    "results": [{"index": 2, "relevance_score": 0.2}, {"index": 0, "relevance_score": 0.9}],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1.0}},
}


def decode(**fields: Any) -> Any:
    body = {"model": "cohere:rerank", "query": REQUEST.query, "documents": REQUEST.documents, **fields}
    return DIALECT.decode(json.dumps(body).encode(), {})


def test_clients_body_reaches_the_provider() -> None:
    call = decode(top_n=2, max_tokens_per_doc=100, documents=["Bern", {"text": "Paris"}, "Rome"])
    assert call.request == REQUEST
    request = ADAPTER.render(model_call(call.request, call.parameters, base_url="https://provider.test/v2/"))
    assert request.url == "https://provider.test/v2/rerank"
    assert request.headers["authorization"] == "Bearer secret-key"
    assert json.loads(request.body) == {
        "model": "model-1",
        "query": "capital?",
        "documents": ["Bern", "Paris", "Rome"],
        "top_n": 2,
        "max_tokens_per_doc": 100,
    }


def test_answer_is_ranked_best_first_and_counts_searches() -> None:
    response = ADAPTER.parse(model_call(REQUEST), answer(ANSWER))
    assert response.output == RerankOutput([RankedDocument(0, 0.9), RankedDocument(2, 0.2)])
    assert response.usage == Usage(searches=1)
    assert response.response_id == "rr1"


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"usage": {"total_tokens": 15, "prompt_tokens": 15}}, Usage(input_tokens=15)),
        ({"usage": {"total_tokens": 56}}, Usage(input_tokens=56)),
        (
            {"meta": {"billed_units": {"search_units": 2}, "tokens": {"input_tokens": 7.0}}},
            Usage(input_tokens=7, searches=2),
        ),
        ({}, None),
    ],
)
def test_usage_of_others_is_read(fields: dict[str, Any], usage: Usage | None) -> None:
    body = {"results": ANSWER["results"], "model": "jina", **fields}
    assert ADAPTER.parse(model_call(REQUEST), answer(body)).usage == usage


@pytest.mark.parametrize("indexes", [[3], [0, 0], [-1]])
def test_indexes_that_are_not_those_of_the_documents_are_no_answer(indexes: list[int]) -> None:
    results = [{"index": index, "relevance_score": 1} for index in indexes]
    with pytest.raises(InvalidResponse):
        ADAPTER.parse(model_call(REQUEST), answer({"results": results}))


@pytest.mark.parametrize("body", [{"message": "so it is"}, {"detail": "so it is"}, {"error": {"message": "so it is"}}])
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRequest), (401, AuthenticationFailed), (429, RateLimited), (503, ProviderUnavailable)],
)
def test_errors_map_with_their_message(body: dict[str, Any], status: int, error: type[ProviderError]) -> None:
    with pytest.raises(error, match="so it is") as caught:
        ADAPTER.parse(model_call(REQUEST), answer(body, status, retry_after="3"))
    assert caught.value.retry_after_seconds == 3


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (model_call(chat("x")), "operation"),
        (model_call(REQUEST, stream=True), "stream"),
        (model_call(REQUEST, {"user": "x"}), "parameters.user"),
        (model_call(REQUEST, {"rank_fields": ["a"]}), "parameters.rank_fields"),
    ],
)
def test_what_cannot_be_expressed_is_refused_before_the_call(call: Any, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.render(call)
    assert caught.value.message.startswith(f"{place} ")


def test_unknown_field_of_a_client_reaches_only_models_that_allow_it() -> None:
    call = decode(truncation=True)
    with pytest.raises(InvalidRequest, match=r"parameters\.truncation"):
        ADAPTER.render(model_call(call.request, call.parameters))
    assert rendered(ADAPTER, model_call(call.request, call.parameters, allows_unknown=True))["truncation"] is True


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": [{"text": "a", "image": "b"}]}, "documents[0].image"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"stream": True}, "stream"),
    ],
)
def test_bad_field_of_a_client_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize("returns", [True, False, None])
def test_answer_to_the_client_has_scores_and_documents_where_asked_for(returns: bool | None) -> None:
    call = decode(return_documents=returns)
    response = ADAPTER.parse(model_call(REQUEST), answer(ANSWER))
    body, media_type = DIALECT.encode(call, response, Usage(searches=1), ANSWERED)
    documents = [{"document": {"text": "Bern"}}, {"document": {"text": "Rome"}}] if returns else [{}, {}]
    assert media_type == "application/json"
    assert json.loads(body) == {
        "id": "req1",
        "model": "the:model",
        "results": [
            {"index": 0, "relevance_score": 0.9, **documents[0]},
            {"index": 2, "relevance_score": 0.2, **documents[1]},
        ],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [(ValidationError("query", 1, "a text"), 400, None), (RateLimited("wait", retry_after_seconds=0.2), 429, "1")],
)
def test_error_to_the_client_has_its_message(error: TollgateError, status: int, retry_after: str | None) -> None:
    encoded = DIALECT.encode_error(error)
    assert encoded.status == status
    assert json.loads(encoded.body) == {"message": error.message, "code": error.code}
    assert encoded.headers.get("retry-after") == retry_after


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.integers(100, 599))
def test_any_bad_body_is_a_provider_error_or_a_validation_error(body: bytes, status: int) -> None:
    with pytest.raises(ProviderError):
        ADAPTER.parse(model_call(REQUEST), answer(body, status))
    with pytest.raises(ValidationError):
        DIALECT.decode(body, {})


@given(st.sampled_from(["results", "meta", "usage", "id", "model"]), json_values)
def test_any_value_in_an_answer_is_read_or_is_a_provider_error(field: str, value: Any) -> None:
    try:
        ADAPTER.parse(model_call(REQUEST), answer({**ANSWER, field: value}))
    except ProviderError:
        return

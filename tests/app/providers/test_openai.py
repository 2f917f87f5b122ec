"""The OpenAI protocol: what is sent, what is read, and that no answer can bring the adapter to fall."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import InvalidResponse, ProviderError, RateLimited
from app.prices.records import Usage
from app.providers.openai import OpenAIAdapter
from app.providers.protocol import ModelCall, ModelResponse, WireResponse

ADAPTER = OpenAIAdapter()
HELLO = [{"role": "user", "content": "Hello"}]


def call(**changes: Any) -> ModelCall:
    fields: dict[str, Any] = {
        "model_id": "chat-1",
        "base_url": "https://api.example.com/v1/",
        "credential": SecretStr("secret-key"),
        "payload": {"messages": HELLO},
        "parameters": {},
        "request_id": "request-1",
    }
    return ModelCall(**fields | changes)


def parse(body: object, status: int = 200, **headers: str) -> ModelResponse:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return ADAPTER.parse(
        WireResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)
    )


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "model": "chat-1-2026",
        "choices": [{"message": {"role": "assistant", "content": "Good day"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    } | changes


def usage_of(**usage: Any) -> Usage | None:
    return parse(answer(usage=usage)).usage


def test_a_call_is_rendered_as_the_protocol_has_it() -> None:
    request = ADAPTER.render(call(parameters={"temperature": 0, "max_tokens": 9}))
    assert request.url == "https://api.example.com/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret-key"
    assert request.headers["x-request-id"] == "request-1"
    assert orjson.loads(request.body) == {"temperature": 0, "max_tokens": 9, "model": "chat-1", "messages": HELLO}


def test_an_input_becomes_the_user_s_message() -> None:
    body = orjson.loads(ADAPTER.render(call(payload={"input": "Hello"})).body)
    assert body["messages"] == HELLO


def test_parameters_cannot_replace_model_or_messages() -> None:
    body = orjson.loads(ADAPTER.render(call(parameters={"model": "other", "messages": []})).body)
    assert (body["model"], body["messages"]) == ("chat-1", HELLO)


def test_neither_the_call_nor_the_request_shows_the_key() -> None:
    assert "secret-key" not in repr(call())
    assert "secret-key" not in repr(ADAPTER.render(call()))


def test_an_answer_is_read_whole() -> None:
    response = parse(answer(), x_request_id="req-7")
    assert response.output == {"choices": answer()["choices"]}
    assert (response.output_text, response.finish_reason) == ("Good day", "stop")
    assert (response.response_model, response.provider_request_id) == ("chat-1-2026", "req-7")
    assert response.usage == Usage(10, 5)


def test_an_answer_of_tool_calls_has_no_text() -> None:
    choice = {
        "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]},
        "finish_reason": "tool_calls",
    }
    assert parse(answer(choices=[choice])).output_text is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, 4)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 6}, Usage(10, 5, 6)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 10}, None),
        ({}, None),
    ],
)
def test_usage_is_read_as_each_provider_writes_it(usage: dict[str, Any], expected: Usage | None) -> None:
    assert usage_of(**usage) == expected


def test_reasoning_that_openai_includes_is_not_counted_twice() -> None:
    details = {"reasoning_tokens": 3}
    read = usage_of(prompt_tokens=10, completion_tokens=5, total_tokens=15, completion_tokens_details=details)
    assert read == Usage(10, 5)


def test_reasoning_that_xai_leaves_out_of_the_completion_is_output() -> None:
    """Figures of https://github.com/vercel/ai/pull/12425."""
    details = {"reasoning_tokens": 386}
    read = usage_of(prompt_tokens=12, completion_tokens=1, total_tokens=399, completion_tokens_details=details)
    assert read == Usage(12, 387)


@pytest.mark.parametrize("total", [None, 3, "15", 15.5, -1, 2**40])
def test_a_total_that_makes_no_sense_is_passed_over(total: object) -> None:
    assert usage_of(prompt_tokens=10, completion_tokens=5, total_tokens=total) == Usage(10, 5)


def test_usage_that_is_left_out_is_missing_and_not_zero() -> None:
    body = answer()
    del body["usage"]
    assert parse(body).usage is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": "10", "completion_tokens": 5},
        {"prompt_tokens": 2**31, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
    ],
)
def test_counts_that_cannot_be_are_an_invalid_response(usage: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponse):
        usage_of(**usage)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 5000, {}, {"choices": []}, {"choices": [{}]}]
    + [
        {"choices": {}},
        {"choices": [{"message": None}]},
        answer(usage=[]),
        answer(usage=7),
        {"error": {"message": "no"}},
    ],
)
def test_a_body_that_the_protocol_does_not_allow_is_an_invalid_response(body: object) -> None:
    with pytest.raises(InvalidResponse) as caught:
        parse(body, x_request_id="req-9")
    assert caught.value.provider_request_id == "req-9"


def test_a_nul_in_an_answer_becomes_the_replacement_character() -> None:
    choice = {"message": {"role": "assistant", "content": "a\0b", "k\0": ["\0"]}, "finish_reason": "st\0op"}
    response = parse(answer(choices=[choice], model="m\0"))
    assert "\0" not in str([response.output_text, response.finish_reason, response.response_model])
    assert b"\\u0000" not in orjson.dumps(response.output)
    assert response.output_text == "a\ufffdb"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "slow down"}}, "slow down"),
        ({"error": "slow down"}, "slow down"),
        ({"message": "slow down"}, "slow down"),
        (b"slow down", "slow down"),
        ({"error": {"message": "slow\0down"}}, "slow\ufffddown"),
        ([1], "no message"),
        (b"", "no message"),
    ],
)
def test_an_error_says_what_the_provider_said(body: object, message: str) -> None:
    with pytest.raises(RateLimited) as caught:
        parse(body, 429, retry_after="3")
    assert caught.value.message == f"the provider answered 429: {message}"
    assert caught.value.retry_after_seconds == 3


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
choices = st.lists(
    st.one_of(
        json_values, st.fixed_dictionaries({"message": json_values | st.fixed_dictionaries({"content": json_values})})
    ),
    max_size=3,
)
usages = st.dictionaries(
    st.sampled_from(
        ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "prompt_cache_hit_tokens"]
    ),
    st.one_of(json_values, st.integers(0, 100), st.fixed_dictionaries({"cached_tokens": json_values})),
)
bodies = st.one_of(
    st.binary(max_size=100),
    json_values.map(orjson.dumps),
    st.fixed_dictionaries({"choices": choices | json_values, "usage": usages | json_values, "model": json_values}).map(
        orjson.dumps
    ),
    st.fixed_dictionaries({"error": json_values | st.dictionaries(st.just("message"), json_values)}).map(orjson.dumps),
)
headers = st.dictionaries(st.sampled_from(["x-request-id", "retry-after", "retry-after-ms"]), st.text(max_size=30))


@given(st.integers(200, 599), headers, bodies)
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(
    status: int, given_headers: dict[str, str], body: bytes
) -> None:
    try:
        response = ADAPTER.parse(WireResponse(status, given_headers, body))
    except ProviderError as error:
        assert "\0" not in error.message
        assert len(error.message) < 700
    else:
        assert 200 <= status < 300
        if (usage := response.usage) is not None:
            assert 0 <= usage.cache_read_tokens <= usage.input_tokens
            assert usage.output_tokens >= 0
            assert usage.total_tokens < 2**31

"""Anthropic's messages, from a client's body to a provider's and back."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.errors import (
    AuthenticationFailed,
    CallTimeout,
    ConfigurationError,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    TollgateError,
    Unauthenticated,
    ValidationError,
)
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.anthropic import AnthropicAdapter, AnthropicMessagesDialect
from app.providers.dialect import ClientCall
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from app.providers.operations import (
    ChatOutput,
    ChatRequest,
    Choice,
    EmbeddingRequest,
    FinishReason,
    ReasoningDelta,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)
from app.providers.sse import EventDecoder
from tests.app.providers.calls import (
    ANSWERED,
    answer,
    chat,
    collect,
    events,
    json_values,
    model_call,
    only_choice,
    rendered,
    streamed,
)

ADAPTER = AnthropicAdapter()
DIALECT = AnthropicMessagesDialect()

CLIENT_BODY: dict[str, Any] = {
    "model": "anthropic:claude",
    "max_tokens": 9000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "image", "source": {"type": "url", "url": "https://images.test/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "text", "text": "I will look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": ["it", 1.5]}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a duck"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "broken", "is_error": True},
                {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "tools": [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": {"type": "object", "properties": {"at": {}}},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        }
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "u1"},
    "service_tier": "standard_only",
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
}

MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-1-20260101",
    "content": [
        {"type": "thinking", "thinking": "Let me think.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "text", "text": "Looking. ", "citations": None},
        {"type": "tool_use", "id": "toolu_9", "name": "look", "input": {"at": "it"}},
        {"type": "tool_use", "id": "toolu_10", "name": "stop", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 25},
        "service_tier": "standard",
    },
}
USAGE = Usage(3210, 40, cache_read_tokens=3000, cache_write_tokens=200, reasoning_tokens=25)

START = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE["usage"], "output_tokens": 1}}
STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": START},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "think."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": MESSAGE["content"][1]},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Look"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "ing. "}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {**MESSAGE["content"][3], "input": {}}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"at"'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ':"it"}'}},
    {"type": "content_block_stop", "index": 3},
    {"type": "content_block_start", "index": 4, "content_block": MESSAGE["content"][4]},
    {"type": "content_block_stop", "index": 4},
    {"type": "an_event_of_tomorrow", "what": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 25}},
    },
    {"type": "message_stop"},
]
PARTS: list[Part] = [
    Reasoning("Let me think.", signature="c2ln"),
    Reasoning(redacted="b3BhcXVl"),
    Text("Looking. "),
    ToolCall("toolu_9", "look", '{"at":"it"}'),
    ToolCall("toolu_10", "stop", "{}"),
]


def decode(**changes: Any) -> ClientCall:
    body = {name: value for name, value in {**CLIENT_BODY, **changes}.items() if value is not ...}
    return DIALECT.decode(json.dumps(body).encode(), {})


# --- requests ------------------------------------------------------------------------------------------------------


def test_clients_body_comes_back_unchanged_at_the_provider() -> None:
    call = decode()
    body = rendered(ADAPTER, model_call(call.request, call.parameters, model_id="claude-1"))
    assert body == {**CLIENT_BODY, "model": "claude-1"}


def test_clients_body_is_read_into_our_terms() -> None:
    call = decode()
    assert isinstance(call.request, ChatRequest)
    assert (call.model, call.stream) == ("anthropic:claude", False)
    assert [message.role for message in call.request.messages] == [
        Role.SYSTEM,
        Role.USER,
        Role.ASSISTANT,
        Role.TOOL,
        Role.USER,
    ]
    assert call.request.messages[3].parts[1] == ToolResult("toolu_2", "broken", is_error=True)
    assert call.request.tool_choice == ToolChoice(ToolMode.AUTO, parallel=False)
    assert call.request.response_format == ResponseFormat(
        FormatKind.JSON_SCHEMA, name="output", schema={"type": "object"}, strict=True
    )
    assert call.parameters == {
        "max_tokens": 9000,
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "user": "u1",
        "service_tier": "default",
        "reasoning_effort": "high",
    }


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ({"type": "auto"}, ToolChoice(ToolMode.AUTO)),
        ({"type": "any"}, ToolChoice(ToolMode.REQUIRED)),
        ({"type": "none"}, ToolChoice(ToolMode.NONE)),
        ({"type": "tool", "name": "look"}, ToolChoice(ToolMode.REQUIRED, name="look")),
        (
            {"type": "any", "disable_parallel_tool_use": False},
            ToolChoice(ToolMode.REQUIRED, parallel=True),
        ),
    ],
)
def test_tool_choice_maps_both_ways(wire: dict[str, Any], ours: ToolChoice) -> None:
    call = decode(tool_choice=wire)
    assert isinstance(call.request, ChatRequest)
    assert call.request.tool_choice == ours
    assert rendered(ADAPTER, model_call(call.request, call.parameters))["tool_choice"] == wire


def test_cache_control_of_the_request_marks_its_last_block() -> None:
    call = decode(
        messages=[{"role": "user", "content": "Hi"}], cache_control={"type": "ephemeral"}, system=..., tools=...,
        tool_choice=...,
    )  # fmt: skip
    body = rendered(ADAPTER, model_call(call.request, call.parameters))
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
    ]


def test_unknown_field_of_a_client_reaches_only_models_that_allow_it() -> None:
    call = decode(speed="fast")
    with pytest.raises(InvalidRequest, match=r"parameters\.speed is not known"):
        ADAPTER.render(model_call(call.request, call.parameters))
    assert rendered(ADAPTER, model_call(call.request, call.parameters, allows_unknown=True))["speed"] == "fast"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "extra": 1}]}]},
            "messages[0].content[0].extra",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "messages[0].content[0]",
        ),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "w", "input_schema": {}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"metadata": {"team": "x"}}, "metadata.team"),
        ({"system": "a\0b"}, "body"),
    ],
)
def test_bad_field_of_a_client_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**changes)
    assert caught.value.field == field


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bad_body_of_a_client_is_a_validation_error(body: bytes) -> None:
    with pytest.raises(ValidationError):
        DIALECT.decode(body, {})


@given(st.sampled_from(sorted(CLIENT_BODY)), json_values)
def test_any_value_of_a_field_is_taken_or_is_a_validation_error(field: str, value: Any) -> None:
    try:
        call = decode(**{field: value})
    except ValidationError:
        return
    try:
        ADAPTER.render(model_call(call.request, call.parameters))
    except ProviderError:
        return


def test_credential_goes_in_the_header_alone() -> None:
    request = ADAPTER.render(model_call(chat("Hi"), base_url="https://provider.test/anthropic/"))
    assert request.url == "https://provider.test/anthropic/v1/messages"
    assert request.headers["x-api-key"] == "secret-key"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert b"secret-key" not in request.body
    assert "secret-key" not in repr(request)


def test_base_url_with_a_version_is_understood() -> None:
    request = ADAPTER.render(model_call(chat("Hi"), base_url="https://provider.test/v1"))
    assert request.url == "https://provider.test/v1/messages"


def test_maximum_output_has_a_default_beyond_the_budget_to_think() -> None:
    assert rendered(ADAPTER, model_call(chat("Hi")))["max_tokens"] == 4096
    thinking = {"type": "enabled", "budget_tokens": 2000}
    assert rendered(ADAPTER, model_call(chat("Hi"), {"thinking": thinking}))["max_tokens"] == 6096


@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_either_name_of_the_end_user_is_anthropics_user_id(name: str) -> None:
    assert rendered(ADAPTER, model_call(chat("Hi"), {name: "u1"}))["metadata"] == {"user_id": "u1"}


def test_effort_of_none_turns_thinking_off() -> None:
    body = rendered(ADAPTER, model_call(chat("Hi"), {"reasoning_effort": "none"}))
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


def test_messages_of_one_role_in_a_row_are_one_turn_and_later_system_messages_keep_their_place() -> None:
    request = ChatRequest(
        [
            Message(Role.SYSTEM, [Text("One.")]),
            Message(Role.SYSTEM, [Text("Two.")]),
            Message(Role.USER, [Text("Call.")]),
            Message(Role.ASSISTANT, [Text(""), ToolCall("a", "f", ""), ToolCall("b", "f", "{}")]),
            Message(Role.TOOL, [ToolResult("a", "1")]),
            Message(Role.TOOL, [ToolResult("b", "2")]),
            Message(Role.USER, [Text("Go on.")]),
            Message(Role.SYSTEM, [Text("Three.")]),
        ]
    )
    body = rendered(ADAPTER, model_call(request))
    assert [block["text"] for block in body["system"]] == ["One.", "Two."]
    assert [(turn["role"], [block["type"] for block in turn["content"]]) for turn in body["messages"]] == [
        ("user", ["text"]),
        ("assistant", ["tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text"]),
        ("system", ["text"]),
    ]


def test_data_url_is_sent_as_data() -> None:
    body = rendered(ADAPTER, model_call(chat(Image(url="data:image/jpeg;base64,aGk="))))
    assert body["messages"][0]["content"][0]["source"] == {
        "type": "base64",
        "media_type": "image/jpeg",
        "data": "aGk=",
    }


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"n": 2}, "parameters.n"),
        ({"logprobs": True}, "parameters.logprobs"),
        ({"seed": 1}, "parameters.seed"),
        ({"logit_bias": {"1": 2}}, "parameters.logit_bias"),
        ({"presence_penalty": 0.1}, "parameters.presence_penalty"),
        ({"temperature": 1.1}, "parameters.temperature"),
        ({"max_tokens": "9"}, "parameters.max_tokens"),
        ({"stop": [1]}, "parameters.stop"),
        ({"reasoning_effort": "minimal"}, "parameters.reasoning_effort"),
        ({"reasoning_effort": "none", "thinking": {}}, "parameters.thinking"),
        ({"service_tier": "flex"}, "parameters.service_tier"),
        ({"thinking": "hard"}, "parameters.thinking"),
        ({"modalities": ["text", "audio"]}, "parameters.modalities"),
        ({"user": "a", "safety_identifier": "b"}, "parameters.safety_identifier"),
        ({"whatever": 1}, "parameters.whatever"),
    ],
)
def test_parameter_that_cannot_be_expressed_is_refused_before_the_call(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field} "):
        ADAPTER.render(model_call(chat("Hi"), parameters))


def test_parameters_with_the_value_that_means_nothing_pass() -> None:
    nothing = {"n": 1, "logprobs": False, "seed": None, "presence_penalty": 0, "frequency_penalty": 0.0, "stop": None}
    assert rendered(ADAPTER, model_call(chat("Hi"), nothing)) == rendered(ADAPTER, model_call(chat("Hi")))


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (Message(Role.USER, [ToolCall("a", "f", "{}")]), "messages[0].parts[0]"),
        (Message(Role.ASSISTANT, [Text("x"), ToolCall("a", "f", "[1]")]), "messages[0].parts[1].arguments"),
        (Message(Role.ASSISTANT, [ToolCall("a", "f", "{")]), "messages[0].parts[0].arguments"),
        (Message(Role.ASSISTANT, [Reasoning("x")]), "messages[0].parts[0].signature"),
        (Message(Role.ASSISTANT, [Image(url="https://x.test")]), "messages[0].parts[0]"),
        (Message(Role.SYSTEM, [Image(url="https://x.test")]), "messages[0].parts[0]"),
        (Message(Role.USER, [Image()]), "messages[0].parts[0]"),
        (Message(Role.USER, [Image(url="https://x.test", detail="low")]), "messages[0].parts[0].detail"),
        (Message(Role.USER, [Text("x")], name="Ann"), "messages[0].name"),
        (Message(Role.SYSTEM, [Text("x")]), "messages"),
    ],
)
def test_part_that_its_role_cannot_hold_is_refused_before_the_call(message: Message, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.render(model_call(ChatRequest([message])))
    assert caught.value.message.startswith(f"{place} ")


def test_what_the_protocol_has_not_is_refused_before_the_call() -> None:
    with pytest.raises(InvalidRequest, match=r"^operation "):
        ADAPTER.render(model_call(EmbeddingRequest(["x"])))
    with pytest.raises(InvalidRequest, match=r"^response_format "):
        ADAPTER.render(model_call(chat("x", response_format=ResponseFormat(FormatKind.JSON_OBJECT))))
    with pytest.raises(InvalidRequest, match=r"^tool_choice "):
        ADAPTER.render(model_call(chat("x", tool_choice=ToolChoice())))


def test_tool_without_parameters_takes_an_empty_object() -> None:
    body = rendered(ADAPTER, model_call(chat("x", tools=[Tool("ping")])))
    assert body["tools"] == [{"name": "ping", "input_schema": {"type": "object"}}]


# --- answers -------------------------------------------------------------------------------------------------------


def test_message_is_read_with_all_its_parts_and_counts() -> None:
    response = ADAPTER.parse(model_call(chat("x")), answer(MESSAGE, request_id="req_9"))
    assert only_choice(response.output) == Choice(PARTS, FinishReason.TOOL_CALLS)
    assert response.usage == USAGE
    assert (response.response_model, response.response_id) == ("claude-1-20260101", "msg_01")
    assert response.provider_request_id == "req_9"


def test_streamed_answer_is_the_same_as_the_whole_one() -> None:
    call = model_call(chat("x"), stream=True)
    whole = ADAPTER.parse(call, answer(MESSAGE))
    collected = collect(streamed(ADAPTER, call, events(*STREAM))).response()
    assert collected == whole


def test_first_usage_of_a_stream_is_flagged_as_estimated() -> None:
    call = model_call(chat("x"), stream=True)
    usages = [chunk.usage for chunk in streamed(ADAPTER, call, events(*STREAM)) if isinstance(chunk, StreamUsage)]
    assert usages[0].estimated
    assert usages[0].input_tokens == 3210
    assert usages[-1] == USAGE


@pytest.mark.parametrize("length", range(len(STREAM) - 1))
def test_stream_that_ends_early_is_a_broken_connection(length: int) -> None:
    with pytest.raises(ConnectionFailed):
        streamed(ADAPTER, model_call(chat("x"), stream=True), events(*STREAM[:length]))


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("pause_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("a_reason_of_tomorrow", FinishReason.STOP),
    ],
)
def test_stop_reasons_map(stop_reason: str, expected: FinishReason) -> None:
    response = ADAPTER.parse(model_call(chat("x")), answer({**MESSAGE, "stop_reason": stop_reason}))
    assert only_choice(response.output).finish_reason is expected


def test_refusal_keeps_its_explanation() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "I must not."}
    body = {**MESSAGE, "content": [], "stop_reason": "refusal", "stop_details": details}
    response = ADAPTER.parse(model_call(chat("x")), answer(body))
    assert only_choice(response.output) == Choice([Refusal("I must not.")], FinishReason.CONTENT_FILTER)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", InvalidRequest),
        (401, "authentication_error", AuthenticationFailed),
        (403, "permission_error", PermissionDenied),
        (404, "not_found_error", ModelNotFound),
        (413, "request_too_large", PayloadTooLarge),
        (429, "rate_limit_error", RateLimited),
        (500, "api_error", ProviderUnavailable),
        (504, "timeout_error", ProviderUnavailable),
        (529, "overloaded_error", ProviderUnavailable),
    ],
)
def test_errors_map_alike_as_answer_and_in_a_stream(status: int, kind: str, error: type[ProviderError]) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "so it is"}, "request_id": "req_8"}
    with pytest.raises(error, match="so it is") as caught:
        ADAPTER.parse(model_call(chat("x")), answer(body, status, retry_after="7"))
    assert type(caught.value) is error
    assert caught.value.http_status == status
    assert caught.value.retry_after_seconds == 7
    assert caught.value.provider_request_id == "req_8"
    with pytest.raises(error, match="so it is") as in_stream:
        streamed(ADAPTER, model_call(chat("x"), stream=True), events(STREAM[0], body))
    assert in_stream.value.http_status == status


def test_error_without_the_protocols_body_keeps_its_text() -> None:
    with pytest.raises(ProviderUnavailable, match="502: <html>"):
        ADAPTER.parse(model_call(chat("x")), answer(b"<html>bad gateway", 502))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.integers(100, 599))
def test_any_bad_body_is_a_provider_error(body: bytes, status: int) -> None:
    with pytest.raises(ProviderError):
        ADAPTER.parse(model_call(chat("x")), answer(body, status))


@given(st.sampled_from(["content", "usage", "stop_reason", "stop_details", "id", "model"]), json_values)
def test_any_value_in_an_answer_is_read_or_is_a_provider_error(field: str, value: Any) -> None:
    try:
        ADAPTER.parse(model_call(chat("x")), answer({**MESSAGE, field: value}))
    except ProviderError:
        return


@given(st.lists(st.sampled_from(STREAM)), st.none() | json_values)
def test_any_events_are_read_or_are_a_provider_error(chosen: list[dict[str, Any]], nonsense: Any) -> None:
    try:
        streamed(
            ADAPTER, model_call(chat("x"), stream=True), events(*chosen, {"type": "message_delta", "delta": nonsense})
        )
    except ProviderError:
        return


def test_nul_in_an_answer_becomes_the_replacement_character() -> None:
    body = {**MESSAGE, "content": [{"type": "text", "text": "a\0b"}]}
    assert only_choice(ADAPTER.parse(model_call(chat("x")), answer(body)).output).text == "a\ufffdb"


# --- the gateway's side --------------------------------------------------------------------------------------------


def encoded(choice: Choice, usage: Usage = USAGE) -> SdkMessage:
    body, media_type = DIALECT.encode(decode(), ModelResponse(ChatOutput([choice])), usage, ANSWERED)
    assert media_type == "application/json"
    return SdkMessage.model_validate_json(body)


def accumulated(data: bytes) -> SdkMessage:
    adapter: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    snapshot = None
    buffers: dict[int, bytes] = {}
    for event in EventDecoder().feed(data):
        parsed = adapter.validate_json(event.data)
        assert event.event == parsed.type
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return SdkMessage.model_validate(snapshot.model_dump())


def test_message_is_what_the_sdk_expects() -> None:
    message = encoded(Choice(PARTS, FinishReason.TOOL_CALLS))
    assert (message.id, message.model, message.stop_reason) == ("msg_req1", "the:model", "tool_use")
    assert [block.type for block in message.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert message.usage.input_tokens == 10
    assert message.usage.cache_read_input_tokens == 3000
    assert message.usage.cache_creation_input_tokens == 200
    assert message.usage.output_tokens == 40


def test_stream_is_what_the_sdk_makes_the_same_message_of() -> None:
    chunks = streamed(ADAPTER, model_call(chat("x"), stream=True), events(*STREAM))
    writer = DIALECT.stream_writer(decode(), ANSWERED)
    data = writer.start() + b"".join(map(writer.write, chunks)) + writer.end(USAGE)
    assert accumulated(data) == encoded(Choice(PARTS, FinishReason.TOOL_CALLS))


def test_written_stream_is_read_back_by_our_own_reader() -> None:
    chunks = streamed(ADAPTER, model_call(chat("x"), stream=True), events(*STREAM))
    writer = DIALECT.stream_writer(decode(), ANSWERED)
    data = writer.start() + b"".join(map(writer.write, chunks)) + writer.end(USAGE)
    collected = collect(streamed(ADAPTER, model_call(chat("x"), stream=True), data)).response()
    assert only_choice(collected.output) == Choice(PARTS, FinishReason.TOOL_CALLS)
    assert collected.usage == USAGE


def test_each_delta_is_written_at_once_and_blocks_do_not_overlap() -> None:
    writer = DIALECT.stream_writer(decode(), ANSWERED)
    writer.start()
    assert b"text_delta" in writer.write(TextDelta("a"))
    assert b"content_block_stop" in writer.write(ReasoningDelta("b"))
    assert b"content_block_stop" in writer.write(ToolCallDelta(index=0, id="x", name="f"))
    assert writer.write(ToolCallDelta(index=0, arguments="{}")).count(b"event:") == 1


def test_refusal_in_words_is_told_as_anthropic_tells_it() -> None:
    message = encoded(Choice([Refusal("No.")], FinishReason.STOP))
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert message.stop_details.explanation == "No."


def test_arguments_that_are_no_object_cannot_be_a_message() -> None:
    with pytest.raises(InvalidResponse, match="look"):
        encoded(Choice([ToolCall("a", "look", "{")]))


@pytest.mark.parametrize(
    ("error", "status", "kind", "exception"),
    [
        (ValidationError("max_tokens", None, "given"), 400, "invalid_request_error", anthropic.BadRequestError),
        (Unauthenticated("no token"), 401, "authentication_error", anthropic.AuthenticationError),
        (Forbidden("not yours"), 403, "permission_error", anthropic.PermissionDeniedError),
        (NotFound("LlmModel", "x"), 404, "not_found_error", anthropic.NotFoundError),
        (PayloadTooLarge("big"), 413, "request_too_large", anthropic.APIStatusError),
        (RateLimited("wait", retry_after_seconds=1.2), 429, "rate_limit_error", anthropic.RateLimitError),
        (ConfigurationError("password=x"), 500, "api_error", anthropic.InternalServerError),
        (InvalidResponse("what"), 502, "api_error", anthropic.InternalServerError),
        (CallTimeout("late"), 504, "timeout_error", anthropic.InternalServerError),
        (ProviderUnavailable("busy", http_status=529), 529, "overloaded_error", anthropic.InternalServerError),
    ],
)
def test_errors_become_the_sdks_own_exceptions(
    error: TollgateError, status: int, kind: str, exception: type[anthropic.APIStatusError]
) -> None:
    answered = DIALECT.encode_error(error)

    def respond(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(answered.status, content=answered.body, headers=dict(answered.headers))

    client = anthropic.Anthropic(
        api_key="x", max_retries=0, http_client=anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(respond))
    )
    with pytest.raises(exception) as caught:
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == status
    assert caught.value.type == kind
    assert "password" not in str(caught.value)
    assert caught.value.response.headers.get("retry-after") == ("2" if status == 429 else None)
    assert b"event: error\n" in DIALECT.stream_writer(decode(), ANSWERED).fail(error)

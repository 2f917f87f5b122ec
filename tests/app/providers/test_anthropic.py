"""Anthropic's messages: from a client's body to the request of a provider."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    InvalidRequest,
    ProviderError,
    ValidationError,
)
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
    Reasoning,
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
    ChatRequest,
    EmbeddingRequest,
)
from tests.app.providers.anthropic_examples import (
    ADAPTER,
    CLIENT_BODY,
    DIALECT,
    decode,
)
from tests.app.providers.calls import (
    chat,
    json_values,
    model_call,
    rendered,
)


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

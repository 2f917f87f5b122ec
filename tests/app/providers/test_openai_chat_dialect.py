"""The gateway's chat completions: what clients send becomes ours, and what they get is what OpenAI's SDK reads."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.errors import RateLimited, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
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
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.chat_dialect import OpenAIChatDialect
from app.providers.operations import (
    ChatOutput,
    ChatRequest,
    Choice,
    Chunk,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
)
from app.providers.sse import EventDecoder
from tests.app.providers.calls import ANSWERED, answer, chat, collect, json_values, model_call, rendered, streamed

DIALECT = OpenAIChatDialect()
ADAPTER = OpenAIAdapter()
USAGE = Usage(10, 7, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=3)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def decode(**changes: Any) -> ClientCall:
    body = {"model": "openai:gpt-4o", "messages": [{"role": "user", "content": "Hello"}]} | changes
    return DIALECT.decode(json.dumps(body).encode(), {})


def messages(*sent: dict[str, Any]) -> list[Message]:
    request = decode(messages=list(sent)).request
    assert isinstance(request, ChatRequest)
    return request.messages


def encoded(*choices: Choice) -> ChatCompletion:
    body, media_type = DIALECT.encode(decode(), ModelResponse(ChatOutput(list(choices))), USAGE, ANSWERED)
    assert media_type == "application/json"
    return ChatCompletion.model_validate_json(body, strict=True)


def written(*chunks: Chunk, include_usage: bool = True) -> list[ChatCompletionChunk]:
    options = {"include_usage": True} if include_usage else None
    writer = DIALECT.stream_writer(decode(stream=True, stream_options=options), ANSWERED)
    data = writer.start() + b"".join(writer.write(chunk) for chunk in chunks) + writer.end(USAGE)
    events = EventDecoder().feed(data)
    assert events.pop().data == "[DONE]"
    return [ChatCompletionChunk.model_validate_json(event.data, strict=True) for event in events]


# --- the client's body ---


def test_body_becomes_request_parameters_and_options() -> None:
    call = decode(
        temperature=0.5,
        max_completion_tokens=9,
        seed=None,
        store=False,
        stream=True,
        stream_options={"include_usage": True},
        metadata={"team": "a"},
        top_k=4,
    )
    assert call == ClientCall(
        model="openai:gpt-4o",
        request=chat("Hello"),
        parameters={"temperature": 0.5, "max_tokens": 9, "top_k": 4},
        stream=True,
        options={"include_usage": True},
        metadata={"team": "a"},
    )


def test_conversation_is_read_whole() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert messages(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, image], "name": "ada"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": "No.", "refusal": "I will not."},
    ) == [
        Message(Role.SYSTEM, [Text("Be brief.")]),
        Message(Role.SYSTEM, [Text("a"), Text("b")]),
        Message(Role.USER, [Text("What?"), Image(data="AAAA", media_type="image/png", detail="low")], "ada"),
        Message(Role.ASSISTANT, [Reasoning("hm"), ToolCall("c1", "weather", "{}")]),
        Message(Role.TOOL, [ToolResult("c1", "rain")]),
        Message(Role.ASSISTANT, [Text("No."), Refusal("I will not.")]),
    ]


def test_parts_may_be_marked_for_the_cache() -> None:
    control = {"type": "ephemeral"}
    image = {
        "type": "image_url",
        "image_url": {"url": "https://a.test/b.png"},
        "cache_control": {**control, "ttl": "1h"},
    }
    assert messages({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": control}, image]}) == [
        Message(Role.USER, [Text("a", "5m"), Image(url="https://a.test/b.png", cache_ttl="1h")])
    ]


def test_tools_and_format_are_read() -> None:
    function = {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}
    call = decode(
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
    )
    assert call.request == chat(
        "Hello",
        tools=[Tool("weather", "d", SCHEMA, True)],
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "a", SCHEMA, True),
    )
    assert call.parameters == {}


@pytest.mark.parametrize("part", [Image(url="https://a.test/b.png"), Image(data="AAAA", media_type="image/gif")])
def test_request_survives_the_adapter_and_the_dialect(part: Part) -> None:
    request = ChatRequest(
        messages=[
            Message(Role.SYSTEM, [Text("Be brief.")]),
            Message(Role.USER, [Text("Look:"), part]),
            Message(Role.ASSISTANT, [Reasoning("hm"), Text("I call."), ToolCall("c1", "f", '{"a":1}')]),
            Message(Role.TOOL, [ToolResult("c1", "rain")]),
        ],
        tools=[Tool("f", "d", SCHEMA, False)],
        tool_choice=ToolChoice(ToolMode.AUTO, parallel=True),
        response_format=ResponseFormat(FormatKind.JSON_OBJECT),
    )
    body = rendered(ADAPTER, model_call(request, {"max_tokens": 5, "stop": ["x"]}))
    call = DIALECT.decode(json.dumps(body).encode(), {})
    assert (call.request, call.parameters) == (request, {"max_tokens": 5, "stop": ["x"]})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a", "mood": "b"}]}, "messages[0].mood"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "mood": "b"}]}]},
            "messages[0].content[0].mood",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://a"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom"),
        ({"tools": [{"type": "function"}]}, "tools[0].type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"functions": []}, "functions"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"metadata": "a"}, "metadata"),
    ],
)
def test_refusal_names_the_field_as_the_client_knows_it(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": "a\\u0000"}', b"[" * 5000])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        DIALECT.decode(body, {})


# --- the answer ---


def test_answer_is_what_the_sdk_reads() -> None:
    completion = encoded(
        Choice([Reasoning("hm"), Text("Good "), Text("day"), ToolCall("c1", "f", "{}")], FinishReason.TOOL_CALLS),
        Choice([Refusal("No.")], FinishReason.STOP, 1),
    )
    assert (completion.id, completion.model, completion.created) == ("chatcmpl-req1", "the:model", 1795132800)
    first, second = completion.choices
    assert first.message.content == "Good day"
    assert first.message.model_extra == {"reasoning_content": "hm"}
    assert first.message.tool_calls is not None
    assert first.message.tool_calls[0].model_dump() == {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    assert (first.finish_reason, second.finish_reason, second.index) == ("tool_calls", "stop", 1)
    assert (second.message.content, second.message.refusal) == (None, "No.")
    usage = completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 7, 17)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.prompt_tokens_details.cache_write_tokens == 2
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 3


def test_an_sdk_s_message_may_come_back_as_it_was_given() -> None:
    choice = Choice([Reasoning("hm", signature="s"), Reasoning(redacted="r"), Text("a"), ToolCall("c", "f", "{}")])
    given_back = encoded(choice).choices[0].message.model_dump()
    assert messages(given_back) == [Message(Role.ASSISTANT, choice.parts)]


def test_provider_s_own_answer_passes_through_unchanged_in_meaning() -> None:
    choice = Choice([Reasoning("hm"), Text("a"), ToolCall("c", "f", "{}")], FinishReason.TOOL_CALLS)
    body, _ = DIALECT.encode(decode(), ModelResponse(ChatOutput([choice])), USAGE, ANSWERED)
    again = ADAPTER.parse(model_call(chat("Hello")), answer(body))
    assert isinstance(again, ModelResponse)
    assert (again.output, again.usage) == (ChatOutput([choice]), USAGE)


# --- streams ---

CHUNKS = (
    StreamStarted("m", "r"),
    ReasoningDelta("h"),
    ReasoningDelta("m"),
    TextDelta("Good "),
    TextDelta("day"),
    ToolCallDelta(0, "c1", "f"),
    ToolCallDelta(0, arguments='{"a":'),
    ToolCallDelta(0, arguments="1}"),
    ToolCallDelta(1, "c2", "g", "{}"),
    Finished(FinishReason.TOOL_CALLS),
)


def test_stream_is_what_the_sdk_gathers_into_the_whole_answer() -> None:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in written(*CHUNKS):
        state.handle_chunk(chunk)
    completion = state.get_final_completion()
    message = completion.choices[0].message
    assert (message.role, message.content) == ("assistant", "Good day")
    assert message.tool_calls is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("c1", "f", '{"a":1}'),
        ("c2", "g", "{}"),
    ]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 17


def test_stream_read_again_is_the_same_stream() -> None:
    writer = DIALECT.stream_writer(decode(stream=True, stream_options={"include_usage": True}), ANSWERED)
    data = b"".join(writer.write(chunk) for chunk in CHUNKS) + writer.end(USAGE)
    again = collect(streamed(ADAPTER, model_call(chat("a"), stream=True), data)).response()
    first = collect(list(CHUNKS)).response()
    assert (again.output, again.usage) == (first.output, USAGE)


def test_each_choice_begins_with_its_role() -> None:
    chunks = written(TextDelta("a", choice=1), RefusalDelta("b", choice=0), TextDelta("c", choice=1))
    assert [(chunk.choices[0].index, chunk.choices[0].delta.role) for chunk in chunks[:-1]] == [
        (1, "assistant"),
        (0, "assistant"),
        (1, None),
    ]


def test_stream_has_usage_only_where_the_client_asked() -> None:
    assert written(TextDelta("a"), include_usage=False)[-1].usage is None
    last = written(TextDelta("a"))[-1]
    assert last.choices == []
    assert last.usage is not None


def test_stream_that_fails_ends_with_an_error_that_the_sdk_raises() -> None:
    writer = DIALECT.stream_writer(decode(stream=True), ANSWERED)
    [event] = EventDecoder().feed(writer.fail(RateLimited("the provider answered 429: slow down")))
    assert json.loads(event.data) == {
        "error": {
            "message": "the provider answered 429: slow down",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limited",
        }
    }


bodies = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "system", "assistant", "tool"])},
                optional={
                    "content": json_values | st.lists(st.fixed_dictionaries({"type": st.text(), "text": json_values})),
                    "tool_calls": json_values,
                    "reasoning_details": json_values,
                },
            )
            | json_values,
            max_size=3,
        ),
        "tools": json_values,
        "tool_choice": json_values,
        "response_format": json_values | st.fixed_dictionaries({"type": json_values, "json_schema": json_values}),
        "stream": json_values,
        "stream_options": json_values,
        "max_tokens": json_values,
        "max_completion_tokens": json_values,
    },
)


@given(bodies | json_values)
def test_nothing_but_a_call_or_a_refusal_comes_of_any_body(body: Any) -> None:
    with suppress(ValidationError):
        call = DIALECT.decode(json.dumps(body).encode(), {})
        assert call == replace(call)

"""OpenAI's Responses API as the adapter calls it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
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
from app.providers.openai.responses import OpenAIResponsesDialect
from app.providers.openai.responses_client import OpenAIResponsesAdapter
from app.providers.operations import (
    ChatOutput,
    ChatRequest,
    Choice,
    Chunk,
    EmbeddingRequest,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)
from tests.app.providers.calls import (
    ANSWERED,
    answer,
    chat,
    collect,
    events,
    json_values,
    model_call,
    rendered,
    streamed,
)

ADAPTER = OpenAIResponsesAdapter()
DIALECT = OpenAIResponsesDialect()
CALL = DIALECT.decode(b'{"model": "m", "input": "a"}', {})
USAGE = Usage(10, 7, 4, 2, 3)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def parse(body: Any, status: int = 200) -> ModelResponse:
    response = ADAPTER.parse(model_call(chat("Hello")), answer(body, status, x_request_id="r"))
    assert isinstance(response, ModelResponse)
    return response


def read(data: bytes) -> list[Chunk]:
    return streamed(ADAPTER, model_call(chat("a"), stream=True), data)


def test_request_is_rendered_as_the_protocol_has_it() -> None:
    request = ChatRequest(
        [
            Message(Role.SYSTEM, [Text("Be brief.")]),
            Message(Role.USER, [Text("What?"), Image(data="AAAA", media_type="image/png")]),
            Message(Role.ASSISTANT, [Reasoning("hm", "sig"), Text("I call."), ToolCall("c1", "f", "{}")]),
            Message(Role.TOOL, [ToolResult("c1", "gone", is_error=True)]),
        ],
        tools=[Tool("f")],
        tool_choice=ToolChoice(ToolMode.REQUIRED, "f", parallel=False),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "a", SCHEMA, True),
    )
    parameters = {"max_tokens": 9, "reasoning_effort": "low", "verbosity": "low", "temperature": 1}
    call = model_call(request, parameters, base_url="https://api.openai.com/v1", stream=True)
    assert ADAPTER.render(call).url == "https://api.openai.com/v1/responses"
    assert rendered(ADAPTER, call) == {
        "model": "model-1",
        "input": [
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                ],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "sig"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call."}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "Error: gone"},
        ],
        "tools": [
            {"type": "function", "name": "f", "strict": False, "parameters": {"type": "object", "properties": {}}}
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 9,
        "temperature": 1,
        "store": False,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("request_", "parameters"),
    [
        (ChatRequest([]), {}),
        (chat("a"), {"n": 2}),
        (chat("a"), {"stop": ["x"]}),
        (chat("a"), {"seed": 1}),
        (chat(Reasoning("hm")), {}),
        (ChatRequest([Message(Role.USER, [Text("a")], "ada")]), {}),
        (ChatRequest([Message(Role.ASSISTANT, [Reasoning("hm")])]), {}),
        (ChatRequest([Message(Role.ASSISTANT, [Image(url="https://a.test/b.png")])]), {}),
        (ChatRequest([Message(Role.TOOL, [Text("a")])]), {}),
        (chat("a", tool_choice=ToolChoice(ToolMode.REQUIRED)), {}),
        (chat("a", response_format=ResponseFormat(FormatKind.JSON_SCHEMA)), {}),
    ],
)
def test_what_cannot_be_expressed_is_refused(request_: ChatRequest, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(request_, parameters))


def test_other_operations_go_where_openai_has_them() -> None:
    assert ADAPTER.render(model_call(EmbeddingRequest(["a"]))).url == "https://provider.test/embeddings"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([Text("Good day")], FinishReason.STOP),
        ([Text("Good")], FinishReason.LENGTH),
        ([Refusal("No.")], FinishReason.CONTENT_FILTER),
        ([Text("a"), ToolCall("c", "f", "{}")], FinishReason.TOOL_CALLS),
    ],
)
def test_answer_of_the_gateway_is_read_as_it_was_written(parts: list[Any], reason: FinishReason) -> None:
    output = ChatOutput([Choice(parts, reason)])
    again = parse(DIALECT.encode(CALL, ModelResponse(output), USAGE, ANSWERED)[0])
    assert (again.output, again.usage, again.response_id) == (output, USAGE, "resp_req1")


def test_stream_of_the_gateway_is_read_as_it_was_written() -> None:
    chunks: list[Chunk] = [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("Good "),
        TextDelta("day"),
        RefusalDelta("No."),
        ToolCallDelta(0, "c1", "f"),
        ToolCallDelta(0, arguments="{"),
        ToolCallDelta(0, arguments="}"),
        ToolCallDelta(1, "c2", "g"),
        Finished(FinishReason.TOOL_CALLS),
    ]
    writer = DIALECT.stream_writer(CALL, ANSWERED)
    data = writer.start() + b"".join(writer.write(chunk) for chunk in chunks) + writer.end(USAGE)
    assert read(data) == [StreamStarted("the:model", "resp_req1"), *chunks, StreamUsage(USAGE)]


def test_reasoning_is_read_with_its_summary_and_encrypted_content() -> None:
    item = {
        "type": "reasoning",
        "id": "rs",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
        "encrypted_content": "sig",
    }
    body = {"status": "completed", "output": [item, {"type": "reasoning", "summary": []}]}
    assert parse(body).output == ChatOutput([Choice([Reasoning("a\n\nb", "sig")], FinishReason.STOP)])
    pieces: list[dict[str, Any]] = [
        {"type": "response.reasoning_summary_part.added", "summary_index": 0},
        {"type": "response.reasoning_summary_text.delta", "delta": "a"},
        {"type": "response.reasoning_summary_part.added", "summary_index": 1},
        {"type": "response.reasoning_summary_text.delta", "delta": "b"},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {}},
    ]
    assert collect(read(events(*pieces))).response().output == parse(body).output


def test_call_that_comes_at_once_is_read_at_once() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    ended = {"type": "response.completed", "response": {}}
    wanted = [ToolCallDelta(0, "c", "f"), ToolCallDelta(0, arguments="{}"), Finished(FinishReason.TOOL_CALLS)]
    assert read(events(done, ended)) == wanted
    assert read(events(done | {"type": "response.output_item.added"}, done, ended)) == wanted


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "slow"}}, RateLimited),
        ({"status": "failed", "output": [], "error": {"code": "server_error", "message": "x"}}, ProviderUnavailable),
        ({"status": "queued", "output": []}, InvalidResponse),
        ({"status": "completed"}, InvalidResponse),
        ({"status": "completed", "output": [{"type": "web_search_call"}]}, InvalidResponse),
        ({"status": "completed", "output": [{"type": "function_call"}]}, InvalidResponse),
        ({"status": "completed", "output": [], "usage": {"input_tokens": -1}}, InvalidResponse),
    ],
)
def test_answers_that_are_none_are_errors(body: Any, kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        parse(body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"type": "response.output_text.delta", "delta": "a"}, ConnectionFailed),
        ({"type": "response.failed", "response": {"error": {"code": "server_error"}}}, ProviderUnavailable),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, RateLimited),
        ({"type": "response.function_call_arguments.delta", "delta": "{"}, InvalidResponse),
        ({"type": 3}, InvalidResponse),
    ],
)
def test_streams_that_break_are_errors(body: dict[str, Any], kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        read(events(body))


def test_request_survives_the_adapter_and_the_dialect() -> None:
    request = ChatRequest(
        [
            Message(Role.SYSTEM, [Text("Be brief.")]),
            Message(Role.USER, [Text("a"), Image(url="https://a.test/b.png", detail="low")]),
            Message(Role.ASSISTANT, [Text("b"), ToolCall("c", "f", "{}")]),
            Message(Role.TOOL, [ToolResult("c", "d")]),
        ],
        tools=[Tool("f", "d", SCHEMA, True)],
        tool_choice=ToolChoice(ToolMode.AUTO, parallel=False),
        response_format=ResponseFormat(FormatKind.JSON_OBJECT),
    )
    body = rendered(ADAPTER, model_call(request, {"max_tokens": 5}))
    call = DIALECT.decode(json.dumps(body).encode(), {})
    assert (call.request, call.parameters) == (request, {"max_tokens": 5})
    assert replace(call, stream=True).stream


@given(json_values | st.fixed_dictionaries({"status": json_values, "output": json_values, "usage": json_values}))
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)


names = st.sampled_from(
    ["response.created", "response.output_item.added", "response.output_item.done", "response.completed", "error"]
)


@given(st.lists(st.fixed_dictionaries({"type": names}, optional={"item": json_values, "response": json_values})))
def test_nothing_but_chunks_or_a_provider_error_comes_of_any_stream(bodies: list[dict[str, Any]]) -> None:
    with suppress(ProviderError):
        read(events(*bodies))

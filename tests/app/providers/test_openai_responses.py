"""The gateway's Responses API: what clients send becomes ours, and what they get is what OpenAI's SDK reads."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from app.errors import ProviderUnavailable, RateLimited, TollgateError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.collect import Collector
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
from app.providers.openai.responses import OpenAIResponsesDialect
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
from tests.app.providers.calls import ANSWERED, chat, json_values

DIALECT = OpenAIResponsesDialect()
USAGE = Usage(10, 7, cache_read_tokens=4, reasoning_tokens=3)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def decode(**changes: Any) -> ClientCall:
    return DIALECT.decode(json.dumps({"model": "openai:gpt-4o", "input": "Hello"} | changes).encode(), {})


def messages(*items: dict[str, Any]) -> list[Message]:
    request = decode(input=list(items)).request
    assert isinstance(request, ChatRequest)
    return request.messages


def encoded(*parts: Any, reason: FinishReason = FinishReason.STOP, **asked: Any) -> Response:
    output = ChatOutput([Choice(list(parts), reason)])
    body, media_type = DIALECT.encode(decode(**asked), ModelResponse(output), USAGE, ANSWERED)
    assert media_type == "application/json"
    return Response.model_validate_json(body)


def written(*chunks: Chunk, error: TollgateError | None = None) -> list[Any]:
    """The events as the SDK reads them."""
    writer = DIALECT.stream_writer(decode(stream=True), ANSWERED)
    data = writer.start() + b"".join(writer.write(chunk) for chunk in chunks)
    data += writer.end(USAGE) if error is None else writer.fail(error)
    events = EventDecoder().feed(data)
    assert [event.event for event in events] == [json.loads(event.data)["type"] for event in events]
    read = [EVENT.validate_json(event.data) for event in events]
    assert [event.sequence_number for event in read] == list(range(len(read)))
    return read


# --- the client's body ---


def test_body_becomes_request_and_parameters() -> None:
    call = decode(
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low", "format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
        tools=[{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": False}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        store=False,
        include=["reasoning.encrypted_content"],
        truncation="disabled",
        metadata={"team": "a"},
    )
    assert call.request == ChatRequest(
        messages=[Message(Role.SYSTEM, [Text("Be brief.")]), Message(Role.USER, [Text("Hello")])],
        tools=[Tool("f", "d", SCHEMA, False)],
        tool_choice=ToolChoice(ToolMode.REQUIRED, "f", False),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "a", SCHEMA, True),
    )
    assert call.parameters == {"temperature": 0.5, "verbosity": "low", "reasoning_effort": "low", "max_tokens": 9}
    assert call.metadata == {"team": "a"}


def test_items_become_messages_and_an_assistant_s_in_a_row_are_one() -> None:
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What?"},
                {"type": "input_image", "image_url": "https://a.test/b.png", "detail": "high"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I call.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ) == [
        Message(Role.SYSTEM, [Text("Be brief.")]),
        Message(Role.USER, [Text("What?"), Image(url="https://a.test/b.png", detail="high")]),
        Message(
            Role.ASSISTANT, [Reasoning("hm"), Text("I call."), ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")]
        ),
        Message(Role.TOOL, [ToolResult("c1", "rain"), ToolResult("c2", "sun")]),
        Message(Role.ASSISTANT, [Refusal("No.")]),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"role": "king", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input[0].encrypted_content"),
        ({"instructions": 3}, "instructions"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"tone": "warm"}}, "text.tone"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
    ],
)
def test_refusal_names_the_field_as_the_client_knows_it(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**changes)
    assert caught.value.field == field


# --- the answer ---


def test_answer_is_what_the_sdk_reads() -> None:
    response = encoded(
        Reasoning("hm"),
        Text("Good "),
        Text("day"),
        ToolCall("c1", "f", "{}"),
        reason=FinishReason.TOOL_CALLS,
        instructions="Be brief.",
        temperature=0.5,
        tools=[{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
    )
    assert (response.id, response.model, response.status) == ("resp_req1", "the:model", "completed")
    assert response.output_text == "Good day"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert (response.instructions, response.temperature) == ("Be brief.", 0.5)
    assert response.tools[0].type == "function"
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (10, 7, 17)
    assert usage.input_tokens_details.cached_tokens == 4
    assert usage.output_tokens_details.reasoning_tokens == 3


@pytest.mark.parametrize(
    ("reason", "why"), [(FinishReason.LENGTH, "max_output_tokens"), (FinishReason.CONTENT_FILTER, "content_filter")]
)
def test_answer_that_was_cut_is_incomplete(reason: FinishReason, why: str) -> None:
    response = encoded(Text("Good"), reason=reason)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == why


def test_an_answer_s_items_may_come_back_as_they_were_given() -> None:
    parts: list[Part] = [
        Reasoning("hm", signature="s"),
        Reasoning(redacted="r"),
        Text("a"),
        Refusal("b"),
        ToolCall("c", "f", "{}"),
    ]
    given_back = [item.model_dump() for item in encoded(*parts).output]
    assert messages(*given_back) == [Message(Role.ASSISTANT, parts)]


# --- streams ---


def test_text_comes_as_the_documented_events() -> None:
    events = written(StreamStarted("m"), TextDelta("Good "), TextDelta("day"), Finished(FinishReason.STOP))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[-1].response.output_text == "Good day"


def test_tool_calls_and_reasoning_come_as_the_documented_events() -> None:
    events = written(
        ReasoningDelta("hm"),
        ReasoningDelta(signature="s"),
        ToolCallDelta(0, "c1", "f"),
        ToolCallDelta(0, arguments="{}"),
        Finished(FinishReason.TOOL_CALLS),
    )
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert {event.output_index for event in events if hasattr(event, "output_index")} == {0, 1}


CHUNKS: tuple[Chunk, ...] = (
    ReasoningDelta("h"),
    ReasoningDelta("m"),
    ReasoningDelta(signature="s"),
    ReasoningDelta(redacted="r"),
    TextDelta("Good "),
    TextDelta("day"),
    RefusalDelta("No."),
    ToolCallDelta(0, "c1", "f"),
    ToolCallDelta(1, "c2", "g", "{}"),
    ToolCallDelta(0, arguments="{}"),
)


@pytest.mark.parametrize("reason", list(FinishReason))
def test_stream_ends_with_the_same_response_as_the_whole_answer(reason: FinishReason) -> None:
    chunks = [*CHUNKS, Finished(reason)]
    collector = Collector()
    for chunk in chunks:
        collector.add(chunk)
    body, _ = DIALECT.encode(decode(stream=True), collector.response(), USAGE, ANSWERED)
    assert written(*chunks)[-1].response == Response.model_validate_json(body)


def test_sdk_gathers_the_stream_into_the_whole_answer() -> None:
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    gathered = [event for raw in written(*CHUNKS, Finished(FinishReason.STOP)) for event in state.handle_event(raw)]
    final = gathered[-1]
    assert final.type == "response.completed"
    assert final.response.output_text == "Good day"


@pytest.mark.parametrize(
    ("error", "code"),
    [(RateLimited("slow down"), "rate_limit_exceeded"), (ProviderUnavailable("down"), "server_error")],
)
def test_stream_that_fails_says_so_in_its_last_event(error: TollgateError, code: str) -> None:
    last = written(TextDelta("Good"), error=error)[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert (last.response.error.code, last.response.error.message) == (code, error.message)
    assert last.response.output_text == "Good"


deltas = st.one_of(
    st.builds(TextDelta, st.text()),
    st.builds(RefusalDelta, st.text()),
    st.builds(ReasoningDelta, st.text(), st.none() | st.text(min_size=1)),
    st.builds(ReasoningDelta, redacted=st.text(min_size=1)),
    st.builds(ToolCallDelta, st.integers(0, 2), st.just("c"), st.just("f"), st.text()),
)


@given(st.lists(deltas, max_size=12))
def test_any_stream_is_read_by_the_sdk(chunks: list[Chunk]) -> None:
    events = written(*chunks, Finished(FinishReason.STOP))
    added = [event for event in events if event.type == "response.output_item.added"]
    done = [event for event in events if event.type == "response.output_item.done"]
    assert sorted(event.output_index for event in added) == sorted(event.output_index for event in done)


bodies = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "input": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["message", "reasoning", "function_call", "function_call_output"])},
                optional={
                    "role": st.sampled_from(["user", "system", "assistant"]),
                    "content": json_values,
                    "output": json_values,
                    "summary": json_values,
                },
            )
            | json_values,
            max_size=3,
        ),
        "instructions": json_values,
        "tools": json_values,
        "text": json_values | st.fixed_dictionaries({"format": json_values}),
        "reasoning": json_values,
        "include": json_values,
        "stream": json_values,
        "store": json_values,
    },
)


@given(bodies | json_values)
def test_nothing_but_a_call_or_a_refusal_comes_of_any_body(body: Any) -> None:
    with suppress(ValidationError):
        assert isinstance(DIALECT.decode(json.dumps(body).encode(), {}).request, ChatRequest)


def test_plain_text_is_the_user_s() -> None:
    assert decode().request == chat("Hello")

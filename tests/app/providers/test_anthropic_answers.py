"""Anthropic's messages: a provider's answers and errors, and what a client of the gateway gets of them."""

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
from app.providers.messages import (
    Refusal,
    ToolCall,
)
from app.providers.operations import (
    ChatOutput,
    Choice,
    FinishReason,
    ReasoningDelta,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)
from app.providers.sse import EventDecoder
from tests.app.providers.anthropic_examples import (
    ADAPTER,
    DIALECT,
    MESSAGE,
    PARTS,
    STREAM,
    USAGE,
    decode,
)
from tests.app.providers.calls import (
    ANSWERED,
    answer,
    chat,
    collect,
    events,
    json_values,
    model_call,
    only_choice,
    streamed,
)


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

"""OpenAI's chat completions: what is sent, what is read, and that no answer can bring the adapter to fall."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConnectionFailed, InvalidRequest, InvalidResponse, ProviderError, RateLimited
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
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
from app.providers.operations import ChatOutput, ChatRequest, Choice, Chunk, FinishReason, TextDelta
from app.providers.sse import EventDecoder
from tests.app.providers.calls import answer, chat, collect, events, json_values, model_call, only_choice, rendered
from tests.app.providers.calls import streamed as streamed_by

ADAPTER = OpenAIAdapter()
OPENAI = "https://api.openai.com/v1"
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = Tool("weather", "Says the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}, True)


def completion(message: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Good day"} if message is None else message
    return {
        "id": "chatcmpl-7",
        "model": "chat-1-2026",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    } | changes


def parse(body: Any, status: int = 200, **headers: str) -> ModelResponse:
    response = ADAPTER.parse(model_call(chat("Hello")), answer(body, status, **headers))
    assert isinstance(response, ModelResponse)
    return response


def usage_of(**usage: Any) -> Usage | None:
    return parse(completion(usage=usage)).usage


def sent(*messages: Message, base_url: str = "https://compatible.test/v1") -> list[dict[str, Any]]:
    body = rendered(ADAPTER, model_call(ChatRequest(list(messages)), base_url=base_url))
    found: list[dict[str, Any]] = body["messages"]
    return found


# --- what is sent ---


def test_call_is_rendered_as_the_protocol_has_it() -> None:
    call = model_call(chat("Hello"), {"temperature": 0, "seed": None}, base_url="https://compatible.test/v1/")
    request = ADAPTER.render(call)
    assert (request.method, request.url) == ("POST", "https://compatible.test/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer secret-key"
    assert request.headers["x-request-id"] == "req1"
    assert json.loads(request.body) == {"temperature": 0, "model": "model-1", "messages": HELLO}
    assert "secret-key" not in repr(call) + repr(request)


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (OPENAI, "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://api.deepseek.com", "max_tokens"),
        ("https://api.openai.com.evil.test/v1", "max_tokens"),
    ],
)
def test_maximum_output_has_the_name_that_the_server_knows(base_url: str, name: str) -> None:
    body = rendered(ADAPTER, model_call(chat("Hello"), {"max_tokens": 9}, base_url=base_url))
    assert body[name] == 9
    assert not {"max_tokens", "max_completion_tokens"} - {name} & body.keys()


@pytest.mark.parametrize("name", ["model", "messages", "stream", "tools", "tool_choice", "response_format"])
def test_parameters_cannot_replace_parts_of_the_request(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        rendered(ADAPTER, model_call(chat("Hello"), {name: "x"}, allows_unknown=True))


def test_unknown_parameters_pass_only_where_the_model_says_so() -> None:
    with pytest.raises(InvalidRequest, match="top_k is no parameter"):
        rendered(ADAPTER, model_call(chat("Hello"), {"top_k": 5}))
    assert rendered(ADAPTER, model_call(chat("Hello"), {"top_k": 5}, allows_unknown=True))["top_k"] == 5


def test_stream_asks_for_its_usage() -> None:
    body = rendered(ADAPTER, model_call(chat("Hello"), stream=True))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_conversation_with_images_tools_and_reasoning_is_sent_whole() -> None:
    assert sent(
        Message(Role.SYSTEM, [Text("Be brief.")]),
        Message(Role.USER, [Text("What?"), Image(url="https://a.test/b.png", detail="low")], name="ada"),
        Message(Role.ASSISTANT, [Reasoning("hm"), Text("Look."), ToolCall("c1", "weather", '{"city": "Oslo"}')]),
        Message(Role.TOOL, [ToolResult("c1", "rain"), ToolResult("c2", "gone", is_error=True)]),
        Message(Role.USER, [Image(data="AAAA", media_type="image/png")]),
        Message(Role.ASSISTANT, [Refusal("I will not.")]),
    ) == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://a.test/b.png", "detail": "low"}},
            ],
            "name": "ada",
        },
        {
            "role": "assistant",
            "content": "Look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: gone"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "content": None, "refusal": "I will not."},
    ]


def test_tools_and_formats_are_sent_with_their_schemas() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    request = chat(
        "Hello",
        tools=[WEATHER, Tool("bare")],
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "answer", schema, True),
    )
    body = rendered(ADAPTER, model_call(request))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Says the weather.",
                "parameters": WEATHER.parameters,
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "bare"}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    ("request_", "parameters", "stream"),
    [
        (ChatRequest([]), {}, False),
        (ChatRequest([Message(Role.USER, [Image()])]), {}, False),
        (ChatRequest([Message(Role.USER, [Reasoning("hm")])]), {}, False),
        (ChatRequest([Message(Role.SYSTEM, [Image(url="https://a.test/b.png")])]), {}, False),
        (ChatRequest([Message(Role.TOOL, [Text("a")])]), {}, False),
        (ChatRequest([Message(Role.ASSISTANT, [ToolResult("c", "r")])]), {}, False),
        (ChatRequest([Message(Role.ASSISTANT, [Reasoning(redacted="x")])]), {}, False),
        (chat("a", tool_choice=ToolChoice(ToolMode.REQUIRED)), {}, False),
        (chat("a", response_format=ResponseFormat(FormatKind.JSON_SCHEMA)), {}, False),
        (chat("a"), {"modalities": ["text", "audio"]}, False),
        (chat("a"), {"max_tokens": 1, "max_completion_tokens": 2}, False),
        (chat("a"), {"logprobs": True}, True),
    ],
)
def test_what_cannot_be_expressed_is_refused_before_the_call(
    request_: ChatRequest, parameters: dict[str, Any], stream: bool
) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(request_, parameters, stream=stream))


def test_openai_itself_takes_no_reasoning_back() -> None:
    with pytest.raises(InvalidRequest, match="take no reasoning"):
        sent(Message(Role.ASSISTANT, [Reasoning("hm"), Text("a")]), base_url=OPENAI)


# --- what is read ---


def test_answer_is_read_whole() -> None:
    response = parse(completion(), x_request_id="req-7")
    assert response.output == ChatOutput([Choice([Text("Good day")], FinishReason.STOP)])
    assert (response.response_model, response.response_id) == ("chat-1-2026", "chatcmpl-7")
    assert (response.provider_request_id, response.usage) == ("req-7", Usage(10, 5))


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": None, "refusal": "No."}, [Refusal("No.")]),
        ({"content": "b", "reasoning_content": "a"}, [Reasoning("a"), Text("b")]),
        ({"content": "b", "reasoning": "a"}, [Reasoning("a"), Text("b")]),
        ({"content": "", "reasoning_content": None}, []),
        (
            {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            [ToolCall("c", "f", "{")],
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            [ToolCall("call_req1_0_0", "f", '{"a":1}')],
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": "b"},
                ]
            },
            [Reasoning("a"), Text("b")],
        ),
    ],
)
def test_messages_are_read_as_each_server_writes_them(message: dict[str, Any], parts: list[Part]) -> None:
    assert only_choice(parse(completion(message)).output).parts == parts


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("stop", {"content": "a"}, FinishReason.STOP),
        ("length", {"content": "a"}, FinishReason.LENGTH),
        ("model_length", {"content": "a"}, FinishReason.LENGTH),
        ("content_filter", {"content": "a"}, FinishReason.CONTENT_FILTER),
        ("eos", {"content": "a"}, FinishReason.STOP),
        (None, {"content": "a"}, FinishReason.STOP),
        ("stop", {"tool_calls": [{"id": "c", "function": {"name": "f"}}]}, FinishReason.TOOL_CALLS),
        ("length", {"tool_calls": [{"id": "c", "function": {"name": "f"}}]}, FinishReason.LENGTH),
    ],
)
def test_reasons_to_stop(reason: str | None, message: dict[str, Any], expected: FinishReason) -> None:
    body = completion(choices=[{"index": 0, "message": message, "finish_reason": reason}])
    assert only_choice(parse(body).output).finish_reason is expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, 4)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6, "audio_tokens": 2},
            },
            Usage(10, 5, 4, 6),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 6}, Usage(10, 5, 6)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(10, 5, reasoning_tokens=3),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 10}, None),
        ({}, None),
    ],
)
def test_usage_is_read_as_each_provider_writes_it(usage: dict[str, Any], expected: Usage | None) -> None:
    assert usage_of(**usage) == expected


def test_reasoning_that_xai_leaves_out_of_the_completion_is_output() -> None:
    """Figures of https://github.com/vercel/ai/pull/12425."""
    details = {"reasoning_tokens": 386}
    read = usage_of(prompt_tokens=12, completion_tokens=1, total_tokens=399, completion_tokens_details=details)
    assert read == Usage(12, 387, reasoning_tokens=386)


@pytest.mark.parametrize("total", [None, 3, "15", 15.5, -1, 2**40])
def test_total_that_makes_no_sense_is_passed_over(total: object) -> None:
    assert usage_of(prompt_tokens=10, completion_tokens=5, total_tokens=total) == Usage(10, 5)


def test_usage_that_is_left_out_is_missing_and_not_zero() -> None:
    body = completion()
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
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": "3"}},
    ],
)
def test_counts_that_cannot_be_are_an_invalid_response(usage: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponse):
        usage_of(**usage)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 5000),
        *({}, {"choices": []}, {"choices": [{}]}, {"choices": {}}, {"choices": [{"message": None}]}),
        *(completion(usage=[]), completion(usage=7), {"error": {"message": "no"}}),
        completion({"tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]}),
    ],
)
def test_body_that_the_protocol_does_not_allow_is_an_invalid_response(body: Any) -> None:
    with pytest.raises(InvalidResponse) as caught:
        parse(body, x_request_id="req-9")
    assert caught.value.provider_request_id == "req-9"


def test_nul_in_an_answer_becomes_the_replacement_character() -> None:
    response = parse(completion({"content": "a\0b", "k\0": ["\0"]}, model="m\0"))
    assert only_choice(response.output).text == "a\ufffdb"
    assert response.response_model == "m\ufffd"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "slow down"}}, "slow down"),
        ({"error": "slow down"}, "slow down"),
        ({"message": "slow down"}, "slow down"),
        ({"detail": "slow down"}, "slow down"),
        (b"slow down", "slow down"),
        ({"error": {"message": "slow\0down"}}, "slow\ufffddown"),
        ([1], "no message"),
        (b"", "no message"),
    ],
)
def test_error_says_what_the_provider_said(body: Any, message: str) -> None:
    with pytest.raises(RateLimited) as caught:
        parse(body, 429, retry_after="3")
    assert caught.value.message == f"the provider answered 429: {message}"
    assert caught.value.retry_after_seconds == 3


# --- streams ---


def delta(index: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


def as_stream(*bodies: dict[str, Any], done: bool = True) -> bytes:
    return events(*bodies, named=False) + (b"data: [DONE]\n\n" if done else b"")


def streamed(data: bytes, **parameters: Any) -> list[Chunk]:
    return streamed_by(ADAPTER, model_call(chat("Hello"), parameters, stream=True), data)


USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


def test_stream_collects_to_the_same_as_the_whole_answer() -> None:
    data = as_stream(
        delta(role="assistant", content=""),
        delta(reasoning_content="h"),
        delta(reasoning_content="m"),
        delta(content="Good "),
        delta(content="day"),
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}]),
        delta(reason="tool_calls"),
        USAGE,
    )
    whole = parse(
        {
            "id": "c",
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "reasoning_content": "hm",
                        "content": "Good day",
                        "tool_calls": [
                            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                        ],
                    },
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": USAGE["usage"],
        }
    )
    assert collect(streamed(data)).response() == whole


@given(st.data())
def test_stream_is_the_same_however_the_network_cuts_it(data: st.DataObject) -> None:
    wire = as_stream(delta(content="Grüß "), delta(content="dich"), delta(reason="stop"), USAGE)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    reader, decoder = ADAPTER.stream_reader(model_call(chat("a"), stream=True)), EventDecoder()
    pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    chunks = [chunk for piece in pieces for event in decoder.feed(piece) for chunk in reader.read(*event)]
    reader.end()
    assert chunks == streamed(wire)


def test_another_id_at_the_same_index_is_another_call() -> None:
    """Gemini's compatible endpoint: https://github.com/BerriAI/litellm/issues/12463."""
    calls = [
        delta(tool_calls=[{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}}]) for name in "ab"
    ]
    choice = only_choice(collect(streamed(as_stream(*calls, delta(reason="stop")))).response().output)
    assert choice.tool_calls == [ToolCall("a", "a", "{}"), ToolCall("b", "b", "{}")]
    assert choice.finish_reason is FinishReason.TOOL_CALLS


def test_done_ends_choices_that_gave_no_reason() -> None:
    choice = only_choice(collect(streamed(as_stream(delta(content="a")))).response().output)
    assert choice.finish_reason is FinishReason.STOP


def test_stream_without_done_is_whole_where_every_choice_has_ended() -> None:
    assert TextDelta("a") in streamed(as_stream(delta(content="a"), delta(reason="stop"), done=False))


@pytest.mark.parametrize(
    ("data", "parameters"),
    [
        (b"", {}),
        (as_stream(delta(content="a"), done=False), {}),
        (as_stream(delta(content="a"), delta(reason="stop"), done=False), {"n": 2}),
        (as_stream(delta(reason="stop"), delta(1, content="a"), done=False), {}),
    ],
)
def test_stream_that_is_cut_has_lost_its_connection(data: bytes, parameters: dict[str, Any]) -> None:
    with pytest.raises(ConnectionFailed):
        streamed(data, **parameters)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow", "type": "rate_limit_error", "code": None}, RateLimited),
        ({"message": "slow", "code": 429}, RateLimited),
        ({"message": "no", "type": "invalid_request_error"}, InvalidRequest),
        ({"message": "no", "type": "server_error"}, ProviderError),
        ("no", ProviderError),
        ({"message": None}, ProviderError),
    ],
)
def test_error_in_a_stream_is_the_error_it_tells(error: Any, kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        streamed(as_stream(delta(content="a"), {"error": error}))


@pytest.mark.parametrize("data", ["{", "[]", '{"choices": 3}', '{"choices": [{"index": 0, "delta": {"content": 3}}]}'])
def test_event_that_is_nonsense_is_an_invalid_response(data: str) -> None:
    with pytest.raises(InvalidResponse):
        streamed(f"data: {data}\n\n".encode())


# --- anything ---

choices = st.lists(
    json_values
    | st.fixed_dictionaries(
        {"message": json_values | st.fixed_dictionaries({"content": json_values, "tool_calls": json_values})}
    ),
    max_size=3,
)
usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"]),
    json_values | st.integers(0, 100) | st.fixed_dictionaries({"cached_tokens": json_values}),
)
bodies = st.one_of(
    st.binary(max_size=100),
    json_values.map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"choices": choices | json_values, "usage": usages | json_values, "model": json_values})
    .map(json.dumps)
    .map(str.encode),
)
headers = st.dictionaries(st.sampled_from(["x_request_id", "retry_after", "retry_after_ms"]), st.text(max_size=30))


@given(st.integers(200, 599), headers, bodies)
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(
    status: int, given_headers: dict[str, str], body: bytes
) -> None:
    with suppress(ProviderError):
        usage = parse(body, status, **given_headers).usage
        assert 200 <= status < 300
        if usage is not None:
            assert 0 <= usage.cache_read_tokens <= usage.input_tokens
            assert 0 <= usage.reasoning_tokens <= usage.output_tokens


@given(st.lists(bodies, max_size=4))
def test_nothing_but_chunks_or_a_provider_error_comes_of_any_stream(pieces: list[bytes]) -> None:
    data = b"".join(b"data: " + piece.replace(b"\n", b" ") + b"\n\n" for piece in pieces)
    with suppress(ProviderError):
        streamed(data)

"""One suite of behaviours that every wire protocol has, streamed and not, over the real transport."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from app.errors import (
    AuthenticationFailed,
    CallTimeout,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    ProviderConflict,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.anthropic import AnthropicMessagesDialect
from app.providers.collect import Collector
from app.providers.dialect import Dialect
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
from app.providers.openai.chat_dialect import OpenAIChatDialect
from app.providers.openai.responses import OpenAIResponsesDialect
from app.providers.operations import (
    ChatRequest,
    EmbeddingOutput,
    EmbeddingRequest,
    FinishReason,
    ImageOutput,
    ImageRequest,
    ModerationOutput,
    ModerationRequest,
    Operation,
    RerankOutput,
    RerankRequest,
    SpeechOutput,
    SpeechRequest,
    TextDelta,
    TranscriptionOutput,
    TranscriptionRequest,
    VideoOutput,
    VideoRequest,
)
from app.providers.transport import Transport
from tests.app.providers.calls import ANSWERED, answer, chat, collect, model_call, only_choice, streamed
from tests.app.providers.conformance import ANTHROPIC, COHERE, GOOGLE, OPENAI, PROTOCOLS, RESPONSES, Caller, Protocol
from tests.emulator import Emulator

LIMITS = {"max_tokens": 100}
WEATHER = Tool("weather", "Says the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
TRIP = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
CHAT = tuple(protocol for protocol in PROTOCOLS if Operation.CHAT in protocol.adapter.operations)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(max_connections=4) as transport:
        yield transport


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streams(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=CHAT, ids=str)
def caller(request: pytest.FixtureRequest, streams: bool, transport: Transport, emulator: Emulator) -> Caller:
    return Caller(request.param, transport, emulator, streams=streams)


# --- answers ---


async def test_text(caller: Caller) -> None:
    caller.emulator.configure(reply="Guten Tag, schöne Welt \U0001f30d\n\n- eins")
    response = await caller.call(chat("Hello"), LIMITS)
    choice = only_choice(response.output)
    assert choice.text == "Guten Tag, schöne Welt \U0001f30d\n\n- eins"
    assert (choice.finish_reason, choice.tool_calls) == (FinishReason.STOP, [])
    assert response.response_id
    assert response.response_model


async def test_conversation_with_a_system_message(caller: Caller) -> None:
    request = ChatRequest(
        [
            Message(Role.SYSTEM, [Text("Be brief.")]),
            Message(Role.USER, [Text("Hello")]),
            Message(Role.ASSISTANT, [Text("Good day.")]),
            Message(Role.USER, [Text("And?")]),
        ]
    )
    assert only_choice((await caller.call(request, LIMITS)).output).text


async def test_tools_are_called_and_their_results_taken(caller: Caller) -> None:
    orders = [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
    caller.emulator.configure(tool_call=orders)
    request = chat("The weather?", tools=[WEATHER], tool_choice=ToolChoice(ToolMode.AUTO))
    choice = only_choice((await caller.call(request, LIMITS)).output)
    assert choice.finish_reason is FinishReason.TOOL_CALLS
    assert [(call.name, json.loads(call.arguments)) for call in choice.tool_calls] == [
        ("weather", {"city": "Oslo"}),
        ("weather", {"city": "Rome"}),
    ]
    assert len({call.id for call in choice.tool_calls}) == 2
    caller.emulator.configure(tool_call=None)
    results = [ToolResult(call.id, "rain", is_error=index == 1) for index, call in enumerate(choice.tool_calls)]
    answered = ChatRequest(
        [*request.messages, Message(Role.ASSISTANT, list(choice.parts)), Message(Role.TOOL, list(results))],
        tools=[WEATHER],
    )
    assert only_choice((await caller.call(answered, LIMITS)).output).text


@pytest.mark.parametrize("choice", [ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.REQUIRED, "weather")], ids=str)
async def test_demanded_tool_is_called(caller: Caller, choice: ToolChoice) -> None:
    found = only_choice((await caller.call(chat("Hello", tools=[WEATHER], tool_choice=choice), LIMITS)).output)
    [call] = found.tool_calls
    assert isinstance(call, ToolCall)
    assert call.name == "weather"
    assert found.finish_reason is FinishReason.TOOL_CALLS


async def test_images_are_taken(caller: Caller) -> None:
    request = chat("What is it?", Image(data=PNG, media_type="image/png"))
    assert only_choice((await caller.call(request, LIMITS)).output).text


async def test_structured_output_fits_its_schema(caller: Caller) -> None:
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, "trip", TRIP, strict=True)
    choice = only_choice((await caller.call(chat("A trip?", response_format=wanted), LIMITS)).output)
    trip = json.loads(choice.text)
    assert isinstance(trip["city"], str)
    assert isinstance(trip["days"], int)


async def test_usage_with_its_cached_and_reasoning_tokens(caller: Caller) -> None:
    protocol = caller.protocol
    caller.emulator.configure(
        input_tokens=1000, cached_tokens=600, cache_write_tokens=100, output_tokens=50, reasoning_tokens=20
    )
    assert (await caller.call(chat("Hello"), LIMITS)).usage == Usage(
        input_tokens=1000,
        output_tokens=50,
        cache_read_tokens=600,
        cache_write_tokens=100 if protocol.counts_writes else 0,
        reasoning_tokens=20 if protocol.counts_reasoning else 0,
    )


async def test_usage_that_is_left_out_is_none_or_flagged(caller: Caller) -> None:
    caller.emulator.configure(missing_usage=True)
    usage = (await caller.call(chat("Hello"), LIMITS)).usage
    assert usage is None or usage.estimated


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
    ],
)
async def test_reasons_to_stop(caller: Caller, stop: str, reason: FinishReason) -> None:
    caller.emulator.configure(finish_reason=stop)
    assert only_choice((await caller.call(chat("Hello"), LIMITS)).output).finish_reason is reason


async def test_maximum_output_cuts_the_answer(caller: Caller) -> None:
    caller.emulator.configure(reply="word " * 50)
    response = await caller.call(chat("Hello"), {"max_tokens": 7})
    assert only_choice(response.output).finish_reason is FinishReason.LENGTH
    assert response.usage is not None
    assert response.usage.output_tokens == 7


async def test_several_chunks_come_as_they_are_sent(caller: Caller) -> None:
    if not caller.streams:
        pytest.skip("an answer that comes whole has no chunks")
    caller.emulator.configure(reply="one two three four five six", stream_chunks=4, chunk_ms=1)
    texts = [chunk.text for chunk in await caller.chunks(chat("Hello"), LIMITS) if isinstance(chunk, TextDelta)]
    assert len(texts) == 4
    assert "".join(texts) == "one two three four five six"


# --- across protocols ---


@dataclass(frozen=True)
class Client:
    """A dialect, and how a client of its protocol reads what it writes. `asks` is all but model and stream."""

    dialect: Dialect
    reader: Protocol
    asks: Mapping[str, Any]

    def __str__(self) -> str:
        return type(self.dialect).__name__


FUNCTION = {"name": "weather", "description": "Says the weather.", "parameters": WEATHER.parameters}
CLIENTS = (
    Client(
        OpenAIChatDialect(),
        OPENAI,
        {
            "messages": [{"role": "user", "content": "The weather?"}],
            "tools": [{"type": "function", "function": FUNCTION}],
            "max_tokens": 100,
            "stream_options": {"include_usage": True},
        },
    ),
    Client(
        OpenAIResponsesDialect(),
        RESPONSES,
        {"input": "The weather?", "tools": [{"type": "function", **FUNCTION}], "max_output_tokens": 100},
    ),
    Client(
        AnthropicMessagesDialect(),
        ANTHROPIC,
        {
            "messages": [{"role": "user", "content": "The weather?"}],
            "tools": [
                {"name": "weather", "description": "Says the weather.", "input_schema": WEATHER.parameters},
            ],
            "max_tokens": 100,
        },
    ),
)


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_client_of_any_protocol_gets_the_answer_of_any_other(caller: Caller, client: Client) -> None:
    caller.emulator.configure(
        reply="I look it up.",
        tool_call=[{"name": "weather", "arguments": {"city": "Oslo"}}],
        input_tokens=1000,
        cached_tokens=600,
        output_tokens=50,
    )
    asks = {name: value for name, value in client.asks.items() if caller.streams or name != "stream_options"}
    body = json.dumps({"model": "a:b", "stream": caller.streams, **asks}).encode()
    asked = client.dialect.decode(body, {})
    assert asked.request == chat("The weather?", tools=[WEATHER])
    assert asked.parameters == LIMITS

    model_call_of_client = model_call(chat("The weather?"), stream=caller.streams)
    if caller.streams:
        collector = Collector()
        writer = client.dialect.stream_writer(asked, ANSWERED)
        wire = writer.start()
        for chunk in await caller.chunks(asked.request, asked.parameters):
            collector.add(chunk)
            wire += writer.write(chunk)
        given = collector.response()
        assert given.usage is not None
        wire += writer.end(given.usage)
        got = collect(streamed(client.reader.adapter, model_call_of_client, wire)).response()
    else:
        given = await caller.call(asked.request, asked.parameters)
        assert given.usage is not None
        encoded, _ = client.dialect.encode(asked, given, given.usage, ANSWERED)
        read = client.reader.adapter.parse(model_call_of_client, answer(encoded))
        assert isinstance(read, ModelResponse)
        got = read
    sent, found = only_choice(given.output), only_choice(got.output)
    assert (found.text, found.finish_reason) == (sent.text, FinishReason.TOOL_CALLS)
    assert [(call.id, call.name, json.loads(call.arguments)) for call in found.tool_calls] == [
        (sent.tool_calls[0].id, "weather", {"city": "Oslo"})
    ]
    assert got.usage == given.usage


# --- errors and faults ---

ERRORS: list[tuple[int, type[ProviderError]]] = [
    (400, InvalidRequest),
    (401, AuthenticationFailed),
    (403, PermissionDenied),
    (404, ModelNotFound),
    (408, CallTimeout),
    (409, ProviderConflict),
    (413, PayloadTooLarge),
    (422, InvalidRequest),
    (429, RateLimited),
    (500, ProviderUnavailable),
    (503, ProviderUnavailable),
    (504, ProviderUnavailable),
    (529, ProviderUnavailable),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
async def test_each_status_is_its_error(caller: Caller, status: int, kind: type[ProviderError]) -> None:
    if status in caller.protocol.lacks_statuses:
        pytest.skip(f"{caller.protocol} never answers {status}")
    caller.emulator.configure(error=status, error_message="It is so.", retry_after=7)
    with pytest.raises(kind, match="It is so") as caught:
        await caller.call(chat("Hello"), LIMITS)
    assert type(caught.value) is kind
    assert caught.value.http_status == status
    assert caught.value.retry_after_seconds == 7
    assert bool(caught.value.provider_request_id) is caller.protocol.names_requests


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("disconnect", ConnectionFailed),
        ("disconnect_midway", ConnectionFailed),
        ("error_midway", (ConnectionFailed, ProviderUnavailable)),
        ("invalid_json", (InvalidResponse, ConnectionFailed)),
        ("empty_body", (InvalidResponse, ConnectionFailed)),
    ],
)
async def test_broken_answers_are_errors(
    caller: Caller, fault: str, kinds: type[ProviderError] | tuple[type[ProviderError], ...]
) -> None:
    caller.emulator.configure(fault=fault, reply="one two three four five six seven eight")
    with pytest.raises(kinds):
        await caller.call(chat("Hello"), LIMITS)


@pytest.mark.parametrize("fault", ["hang", "hang_midway"])
async def test_answers_that_hang_are_timeouts(caller: Caller, fault: str) -> None:
    caller.emulator.configure(fault=fault, reply="one two three four five six seven eight")
    with pytest.raises(CallTimeout):
        await caller.call(chat("Hello"), LIMITS, read_seconds=0.2)


async def test_an_answer_that_trickles_is_the_same_answer(caller: Caller) -> None:
    caller.emulator.configure(fault="trickle", trickle_ms=0)
    assert only_choice((await caller.call(chat("Hello"), LIMITS)).output).text == "Hello from the emulator."


async def test_huge_answer_is_refused(caller: Caller) -> None:
    caller.emulator.configure(fault="huge_body", huge_body_bytes=(65 if not caller.streams else 33) << 20)
    with pytest.raises(InvalidResponse, match=r"larger|longer"):
        await caller.call(chat("Hello"), LIMITS)


# --- what a protocol cannot do ---


async def test_unknown_parameters_are_refused_before_the_call(caller: Caller) -> None:
    with pytest.raises(InvalidRequest, match="flavour"):
        await caller.call(chat("Hello"), {**LIMITS, "flavour": "sweet"})
    assert caller.emulator.record()["arrivals"] == 0


async def test_misplaced_parts_are_refused_before_the_call(caller: Caller) -> None:
    for part in (Reasoning("hm"), ToolCall("c", "f", "{}")):
        with pytest.raises(InvalidRequest):
            await caller.call(ChatRequest([Message(Role.USER, [part])]), LIMITS)
    assert caller.emulator.record()["arrivals"] == 0


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
async def test_operations_that_a_protocol_has_not_are_refused(
    protocol: Protocol, transport: Transport, emulator: Emulator
) -> None:
    requests: dict[Operation, Any] = {
        Operation.CHAT: chat("Hello"),
        Operation.EMBEDDING: EmbeddingRequest(["a"]),
        Operation.RERANK: RerankRequest("a", ["b"]),
        Operation.IMAGE: ImageRequest("a"),
        Operation.SPEECH: SpeechRequest("a", "alloy"),
        Operation.TRANSCRIPTION: TranscriptionRequest(b"a"),
        Operation.MODERATION: ModerationRequest([Text("a")]),
        Operation.VIDEO: VideoRequest("a"),
    }
    caller = Caller(protocol, transport, emulator, streams=False)
    for operation in set(requests) - protocol.adapter.operations:
        with pytest.raises(InvalidRequest):
            await caller.call(requests[operation])
    assert emulator.record()["arrivals"] == 0


# --- the other kinds of model ---


@pytest.mark.parametrize("protocol", [OPENAI, GOOGLE], ids=str)
async def test_embeddings(protocol: Protocol, transport: Transport, emulator: Emulator) -> None:
    caller = Caller(protocol, transport, emulator, streams=False)
    response = await caller.call(EmbeddingRequest(["first", "second", "first"]), {"dimensions": 8})
    assert isinstance(response.output, EmbeddingOutput)
    first, second, third = response.output.vectors
    assert first == third != second
    assert len(first) == 8


@pytest.mark.parametrize("protocol", [COHERE, Protocol(OPENAI.adapter, "")], ids=str)
async def test_rerank(protocol: Protocol, transport: Transport, emulator: Emulator) -> None:
    caller = Caller(protocol, transport, emulator, streams=False)
    response = await caller.call(RerankRequest("apple", ["stone", "apple", "pear"]), {"top_n": 2})
    assert isinstance(response.output, RerankOutput)
    assert len(response.output.results) == 2
    assert response.output.results[0].index == 1
    assert response.usage == Usage(searches=1)


async def test_images(transport: Transport, emulator: Emulator) -> None:
    response = await Caller(OPENAI, transport, emulator, streams=False).call(ImageRequest("a cat"), {"n": 2})
    assert isinstance(response.output, ImageOutput)
    assert len(response.output.images) == 2
    assert response.usage == Usage(images=2)


@pytest.mark.parametrize("model_id", ["tts-1", "gpt-4o-mini-tts"])
async def test_speech(transport: Transport, emulator: Emulator, model_id: str) -> None:
    protocol = Protocol(OPENAI.adapter, "/v1", model_id=model_id)
    response = await Caller(protocol, transport, emulator, streams=False).call(
        SpeechRequest("Hello", "alloy"), {"response_format": "wav"}
    )
    assert isinstance(response.output, SpeechOutput)
    assert response.output.audio.startswith(b"RIFF")
    assert response.output.media_type == "audio/wav"
    assert response.usage is not None
    assert response.usage.characters == 5
    [billed] = emulator.record()["calls"]
    assert response.usage.output_tokens == billed["output_tokens"]


@pytest.mark.parametrize("model_id", ["whisper-1", "gpt-4o-transcribe"])
async def test_transcription(transport: Transport, emulator: Emulator, model_id: str) -> None:
    emulator.configure(seconds=2.5)
    protocol = Protocol(OPENAI.adapter, "/v1", model_id=model_id)
    response = await Caller(protocol, transport, emulator, streams=False).call(
        TranscriptionRequest(b"RIFF" + bytes(64), "a.wav", "audio/wav")
    )
    assert isinstance(response.output, TranscriptionOutput)
    assert response.output.text
    assert response.usage is not None
    assert bool(response.usage.seconds) is (model_id == "whisper-1")
    assert bool(response.usage.total_tokens) is (model_id != "whisper-1")


async def test_moderation(transport: Transport, emulator: Emulator) -> None:
    emulator.configure(flagged=True)
    caller = Caller(OPENAI, transport, emulator, streams=False)
    response = await caller.call(ModerationRequest([Text("a"), Text("b")]))
    assert isinstance(response.output, ModerationOutput)
    assert [result.flagged for result in response.output.results] == [True, True]


VIDEO = (OPENAI, GOOGLE)


@pytest.mark.parametrize("protocol", VIDEO, ids=str)
async def test_video(protocol: Protocol, transport: Transport, emulator: Emulator) -> None:
    caller = Caller(protocol, transport, emulator, streams=False)
    request = VideoRequest("a cat", Image(data=PNG, media_type="image/png"))
    response = await caller.call(request, {"seconds": "8", "size": "1280x720"})
    assert isinstance(response.output, VideoOutput)
    assert bool(response.output.data) is not response.output.needs_credential
    assert bool(response.output.url) is response.output.needs_credential
    assert response.usage == Usage(seconds=Decimal(8))
    (call,) = emulator.record()["calls"]
    assert (call["operation"], call["seconds"]) == ("videos", 8)


@pytest.mark.parametrize("protocol", VIDEO, ids=str)
async def test_video_of_no_length_is_of_the_same_length_everywhere(
    protocol: Protocol, transport: Transport, emulator: Emulator
) -> None:
    response = await Caller(protocol, transport, emulator, streams=False).call(VideoRequest("a cat"))
    assert response.usage == Usage(seconds=Decimal(4))
    assert emulator.record()["billed"]["seconds"] == 4


@pytest.mark.parametrize("protocol", VIDEO, ids=str)
async def test_video_that_fails(protocol: Protocol, transport: Transport, emulator: Emulator) -> None:
    emulator.configure(job_fails=True)
    with pytest.raises(InvalidRequest, match="could not make the video"):
        await Caller(protocol, transport, emulator, streams=False).call(VideoRequest("a cat"))


def test_every_protocol_of_the_suite_has_another_name() -> None:
    assert {str(protocol) for protocol in PROTOCOLS} == {
        "openai",
        "openai_responses",
        "anthropic",
        "google",
        "cohere",
    }
    assert ANTHROPIC in CHAT

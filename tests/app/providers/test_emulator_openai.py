"""The emulator's other OpenAI operations, and the whole of chat completions, as the official client sees them."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam, Response, ResponseInputParam
from pydantic import BaseModel

from tests.emulator import Emulator

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, world!"}]
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
RESPONSES_WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": PARAMETERS,
    "strict": True,
}
OLD_VIDEO_API = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Trip(BaseModel):
    city: str
    days: int


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=emulator.url(), max_retries=0) as client:
        yield client


@pytest.fixture
def blocking(emulator: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=emulator.url(), max_retries=0) as client:
        yield client


def sound(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(int(16_000 * seconds)))
    return buffer.getvalue()


def served(emulator: Emulator) -> dict[str, Any]:
    """The counts of the only call, without those that are nothing."""
    (call,) = emulator.record()["calls"]
    names = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    units = ("images", "characters", "seconds", "searches")
    return {"operation": call["operation"], **{name: call[name] for name in names + units if call[name]}}


async def test_a_demanded_tool_is_called_with_arguments_that_fit_its_schema(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="m", messages=HELLO, tools=[WEATHER], tool_choice="required"
    )
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "text", "days": 2}


async def test_offered_tools_are_not_called_unless_demanded(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER])
    assert completion.choices[0].message.tool_calls is None


async def test_the_arguments_of_a_streamed_tool_call_come_in_parts(
    emulator: Emulator, client: openai.AsyncOpenAI
) -> None:
    emulator.configure(tool_call=[{"name": "a", "arguments": {"text": "long enough"}}, {"name": "b"}])
    parts = 0
    async with client.chat.completions.stream(model="m", messages=HELLO) as stream:
        async for event in stream:
            parts += event.type == "tool_calls.function.arguments.delta"
        message = (await stream.get_final_completion()).choices[0]
    assert parts > 3
    assert message.finish_reason == "tool_calls"
    assert message.message.tool_calls is not None
    calls = [(call.function.name, call.function.arguments) for call in message.message.tool_calls]
    assert calls == [("a", '{"text":"long enough"}'), ("b", "{}")]


async def test_a_conversation_with_a_tool_result_goes_on(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], tool_choice="required")
    message = first.choices[0].message
    assert message.tool_calls is not None
    said: Any = [*HELLO, message.model_dump(exclude_none=True)]
    with pytest.raises(openai.BadRequestError, match="did not have response messages"):
        await client.chat.completions.create(model="m", messages=said)
    said.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"})
    second = await client.chat.completions.create(model="m", messages=said, tools=[WEATHER])
    assert second.choices[0].message.content == "Hello from the emulator."


async def test_a_tool_that_was_not_offered_cannot_be_demanded(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not found in 'tools'"):
        await client.chat.completions.create(
            model="m",
            messages=HELLO,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "other"}},
        )


async def test_structured_output_fits_the_schema(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.parse(model="m", messages=HELLO, response_format=Trip)
    assert completion.choices[0].message.parsed == Trip(city="text", days=1)
    loose = await client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(loose.choices[0].message.content or ""), dict)


async def test_an_image_in_a_prompt_costs_tokens_and_has_to_be_a_url(client: openai.AsyncOpenAI) -> None:
    def said(url: str) -> list[ChatCompletionMessageParam]:
        content: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": content}]

    usage = (await client.chat.completions.create(model="m", messages=said(PIXEL))).usage
    assert usage is not None
    assert usage.prompt_tokens > 80
    with pytest.raises(openai.BadRequestError, match="expected a URL"):
        await client.chat.completions.create(model="m", messages=said("pixel"))


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
async def test_the_finish_reason_is_as_told(emulator: Emulator, client: openai.AsyncOpenAI, reason: str) -> None:
    emulator.configure(finish_reason=reason)
    completion = await client.chat.completions.create(model="m", messages=HELLO)
    assert completion.choices[0].finish_reason == reason
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == reason


async def test_a_stop_sequence_ends_the_text(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=HELLO, stop=["the", "emu"])
    assert completion.choices[0].message.content == "Hello from "
    assert completion.choices[0].finish_reason == "stop"


async def test_logprobs_cover_the_whole_text(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=HELLO, logprobs=True, top_logprobs=1)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == completion.choices[0].message.content
    assert len(logprobs.content[0].top_logprobs) == 1


async def test_reasoning_is_shown_and_counted(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(reasoning="because it is so", reply="yes")
    completion = await client.chat.completions.create(model="m", messages=HELLO)
    assert completion.choices[0].message.to_dict()["reasoning_content"] == "because it is so"
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 4
    assert completion.usage.completion_tokens == 5
    assert served(emulator)["reasoning_tokens"] == 4


async def test_a_stream_has_as_many_chunks_as_told(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(stream_chunks=7, output_tokens=100)
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert sum(bool(text) for text in texts) == 7


async def test_the_usage_can_be_cut_from_streams_alone(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(cut_stream_usage=True)
    assert (await client.chat.completions.create(model="m", messages=HELLO)).usage is not None
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert all([chunk.usage is None async for chunk in stream])
    record = emulator.record()
    assert [call["output_tokens"] for call in record["calls"]] == [6, 6]
    assert (record["billed"]["input_tokens"], record["billed"]["output_tokens"]) == (6, 12)


async def test_choices_are_streamed_each_under_its_index(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=HELLO, n=2, stream=True)
    texts = ["", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hello from the emulator."] * 2


def test_a_response_has_text_and_usage(emulator: Emulator, blocking: openai.OpenAI) -> None:
    emulator.configure(input_tokens=100, output_tokens=20, cached_tokens=60, cache_write_tokens=30, reasoning_tokens=8)
    response = blocking.responses.create(model="m", input="Hello", instructions="Be brief.", metadata={"a": "b"})
    assert response.status == "completed"
    assert response.output_text == "word " * 12
    assert response.instructions == "Be brief."
    assert response.metadata == {"a": "b"}
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.input_tokens_details.cached_tokens, usage.input_tokens_details.cache_write_tokens) == (60, 30)
    assert usage.output_tokens_details.reasoning_tokens == 8
    assert served(emulator) == {
        "operation": "responses",
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 60,
        "cache_write_tokens": 30,
        "reasoning_tokens": 8,
    }


async def test_a_streamed_response_builds_up_by_typed_events(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="m", input="Hello", reasoning={"summary": "auto"}) as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == response.output_text == "Hello from the emulator."
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert "response.reasoning_summary_text.delta" in kinds


async def test_a_response_that_is_cut_short_is_incomplete(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model="m", input="Hello", max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await client.responses.create(model="m", input="Hello", max_output_tokens=2, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_calls_a_function_and_takes_its_output(client: openai.AsyncOpenAI, streamed: bool) -> None:
    if streamed:
        async with client.responses.stream(
            model="m", input="Hello", tools=[RESPONSES_WEATHER], tool_choice="required"
        ) as stream:
            response: Response = await stream.get_final_response()
    else:
        response = await client.responses.create(
            model="m", input="Hello", tools=[RESPONSES_WEATHER], tool_choice="required"
        )
    (call,) = response.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "text", "days": 2}
    output: ResponseInputParam = [
        {"role": "user", "content": "Hello"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    assert (await client.responses.create(model="m", input=output)).output_text == "Hello from the emulator."
    with pytest.raises(openai.BadRequestError, match="No tool output found"):
        await client.responses.create(model="m", input=output[:2])


async def test_a_response_is_structured_and_sees_images(client: openai.AsyncOpenAI) -> None:
    content: ResponseInputParam = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Where?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        }
    ]
    response = await client.responses.parse(model="m", input=content, text_format=Trip)
    assert response.output_parsed == Trip(city="text", days=1)
    assert response.usage is not None
    assert response.usage.input_tokens > 80


async def test_an_error_in_a_streamed_response_is_an_event(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(fault="error_midway", error_message="overheated")
    stream = await client.responses.create(model="m", input="Hello", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "error"
    assert events[-1].message == "overheated"


async def test_embeddings_are_the_same_each_time_in_either_encoding(
    emulator: Emulator, client: openai.AsyncOpenAI
) -> None:
    asked: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 8}
    floats = await client.embeddings.create(**asked, encoding_format="float")
    packed = await client.embeddings.create(**asked)
    assert [item.embedding for item in floats.data] == [pytest.approx(item.embedding) for item in packed.data]
    assert [item.index for item in floats.data] == [0, 1]
    assert floats.data[0].embedding != floats.data[1].embedding
    assert sum(number**2 for number in floats.data[0].embedding) == pytest.approx(1, abs=1e-5)
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == 1
    raw = await client.embeddings.with_raw_response.create(**asked, encoding_format="base64")
    first = json.loads(raw.content)["data"][0]["embedding"]
    assert array("f", base64.b64decode(first)).tolist() == floats.data[0].embedding
    assert emulator.record()["billed"]["input_tokens"] == 3


async def test_embeddings_of_tokens_and_of_nothing(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="text-embedding-3-large", input=[[1, 2, 3], [4]])
    assert len(answer.data[0].embedding) == 3072
    assert answer.usage.prompt_tokens == 4
    with pytest.raises(openai.BadRequestError, match="none empty"):
        await client.embeddings.create(model="m", input=["a", ""])


async def test_an_image_comes_as_base64_with_usage(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(model="gpt-image-1", prompt="A cat on a mat", n=2)
    assert answer.data is not None
    assert [base64.b64decode(image.b64_json or "")[:4] for image in answer.data] == [b"\x89PNG"] * 2
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2112)
    assert served(emulator) == {"operation": "images", "input_tokens": 3, "output_tokens": 2112, "images": 2}


async def test_an_image_comes_as_a_url_that_can_be_fetched(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(images=1)
    answer = await client.images.generate(model="dall-e-3", prompt="A cat", response_format="url")
    assert answer.data is not None
    assert answer.usage is None
    async with httpx.AsyncClient() as http:
        image = await http.get(answer.data[0].url or "")
    assert (image.headers["content-type"], image.content[:4]) == ("image/png", b"\x89PNG")
    assert served(emulator) == {"operation": "images", "images": 1}


async def test_a_streamed_image_comes_in_parts(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(model="gpt-image-1", prompt="A cat", stream=True, partial_images=2)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert events[-1].type == "image_generation.completed"
    assert events[-1].usage.output_tokens == 1056


@pytest.mark.parametrize(("audio_format", "start"), [("mp3", b"\xff\xfb"), ("wav", b"RIFF"), ("opus", b"OggS")])
async def test_speech_is_bytes_of_its_format(
    emulator: Emulator, client: openai.AsyncOpenAI, audio_format: Any, start: bytes
) -> None:
    answer = await client.audio.speech.create(
        model="tts-1", voice="alloy", input="Good morning", response_format=audio_format
    )
    assert answer.content.startswith(start)
    assert answer.response.headers["content-type"].startswith("audio/")
    assert served(emulator) == {"operation": "speech", "characters": 12}


async def test_speech_is_streamed(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(chunk_ms=1)
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="x" * 200, response_format="wav"
    ) as answer:
        parts = [part async for part in answer.iter_bytes()]
    assert len(parts) > 2
    assert struct.unpack_from("<I", b"".join(parts), 40)[0] == 20_000


async def test_a_transcription_has_text_and_is_billed_by_what_was_heard(
    emulator: Emulator, client: openai.AsyncOpenAI
) -> None:
    emulator.configure(reply="Good morning")
    file = ("a.wav", sound(2.5))
    plain = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file)
    assert plain.text == "Good morning"
    assert plain.usage is not None
    assert plain.usage.type == "tokens"
    assert plain.usage.input_tokens == 25
    verbose = await client.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert (verbose.text, verbose.duration) == ("Good morning", 2.5)
    assert verbose.usage is not None
    assert verbose.usage.seconds == 2.5
    assert verbose.words is not None
    assert [word.word for word in verbose.words] == ["Good", "morning"]
    assert [call["seconds"] for call in emulator.record()["calls"]] == [2.5, 2.5]


async def test_a_transcription_as_text_and_as_a_stream(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    file = ("a.mp3", bytes(32_000))
    text = await client.audio.transcriptions.create(model="whisper-1", file=file, response_format="text")
    assert text == "Hello from the emulator.\n"
    stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "Hello from the emulator."
    assert events[-1].usage is not None
    assert emulator.record()["calls"][0]["seconds"] == 2.0


async def test_moderation_flags_what_it_is_told_to(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    answer = await client.moderations.create(input=["peace", "war"])
    assert [result.flagged for result in answer.results] == [False, False]
    emulator.configure(flagged=True)
    (result,) = (await client.moderations.create(input="war")).results
    assert result.flagged
    assert result.categories.violence
    assert not result.categories.self_harm
    assert emulator.record()["billed"]["input_tokens"] == 0


@OLD_VIDEO_API
async def test_a_video_is_polled_until_it_is_there(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(job_polls=3)
    video = await client.videos.create(model="sora-2", prompt="A cat runs", seconds="8")
    states = [video.status]
    with pytest.raises(openai.NotFoundError, match="not ready"):
        await client.videos.download_content(video.id)
    while video.status not in ("completed", "failed"):
        video = await client.videos.retrieve(video.id)
        states.append(video.status)
    assert states == ["queued", "in_progress", "in_progress", "completed"]
    content = await client.videos.download_content(video.id)
    assert content.content[4:8] == b"ftyp"
    assert served(emulator) == {"operation": "videos", "seconds": 8.0}
    await client.videos.delete(video.id)
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(video.id)


@OLD_VIDEO_API
async def test_polls_and_model_lists_can_fail(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    video = await client.videos.create(prompt="A cat runs")
    emulator.configure(lookup_error=503)
    with pytest.raises(openai.InternalServerError):
        await client.videos.retrieve(video.id)
    with pytest.raises(openai.InternalServerError):
        await client.models.list()
    emulator.configure(lookup_error=None)
    assert (await client.videos.retrieve(video.id)).status == "in_progress"


@OLD_VIDEO_API
async def test_a_video_that_fails_says_why_and_is_not_billed(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(job_fails=True, job_polls=1)
    video = await client.videos.create(prompt="A cat runs")
    video = await client.videos.retrieve(video.id)
    assert video.status == "failed"
    assert video.error is not None
    assert served(emulator) == {"operation": "videos"}


@OLD_VIDEO_API
async def test_every_operation_meets_errors_limits_and_faults(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    file = ("a.wav", sound(1))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "responses": lambda: client.responses.create(model="m", input="x"),
        "embeddings": lambda: client.embeddings.create(model="m", input="x"),
        "images": lambda: client.images.generate(model="m", prompt="x"),
        "speech": lambda: client.audio.speech.create(model="m", voice="alloy", input="x"),
        "transcription": lambda: client.audio.transcriptions.create(model="m", file=file),
        "moderation": lambda: client.moderations.create(model="m", input="x"),
        "videos": lambda: client.videos.create(model="sora-2", prompt="x"),
    }
    for operation, call in calls.items():
        emulator.configure(error=503, requests_per_minute=None)
        with pytest.raises(openai.InternalServerError):
            await call()
        emulator.configure(error=None, fault="disconnect_midway")
        with pytest.raises(openai.APIConnectionError):
            await call()
        emulator.configure(fault=None, requests_per_minute=1)
        with pytest.raises(openai.RateLimitError):
            await call()
        outcomes = [(item["operation"], item["outcome"]) for item in emulator.record()["calls"]]
        assert outcomes == [(operation, "failed"), (operation, "failed"), (operation, "limited")]
        emulator.reset()


async def test_compatible_endpoints_may_have_any_path_before(emulator: Emulator) -> None:
    for beginning in ("/openai/v1", "/api/v1", "/v1beta/openai", "", "/inference/v1"):
        base_url = emulator.root() + beginning
        async with openai.AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
            await client.chat.completions.create(model="m", messages=HELLO)
            assert [model.id async for model in client.models.list()] == ["m"]
            assert (await client.models.retrieve("m")).id == "m"
    assert emulator.record()["arrivals"] == 5

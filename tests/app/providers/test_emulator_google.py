"""The emulator's Gemini protocol, as the official client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from tests.emulator import Emulator

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
            ),
        )
    ]
)
DEMANDED = types.ToolConfig(
    function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
)


class Trip(BaseModel):
    city: str
    days: int


@pytest.fixture
def client(emulator: Emulator) -> Iterator[genai.Client]:
    with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=emulator.root())) as client:
        yield client


def post(emulator: Emulator, method: str, body: Any = None, query: str = "?key=any") -> httpx.Response:
    asked = body or {"contents": [{"parts": [{"text": "Hello, world!"}]}]}
    return httpx.post(f"{emulator.root()}/v1beta/models/m:{method}{query}", json=asked)


def test_an_answer_is_what_the_official_client_expects(client: genai.Client) -> None:
    answer = client.models.generate_content(model="gemini", contents="Hello, world!")
    assert answer.text == "Hello from the emulator."
    assert answer.model_version == "gemini"
    assert answer.response_id
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == 3
    assert answer.usage_metadata.candidates_token_count == 6
    assert answer.usage_metadata.total_token_count == 9


async def test_usage_tells_cached_tokens_and_thoughts(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(input_tokens=1000, cached_tokens=600, output_tokens=50, reasoning_tokens=20)
    whole = await client.aio.models.generate_content(model="m", contents="Hello")
    stream = await client.aio.models.generate_content_stream(model="m", contents="Hello")
    last = [chunk async for chunk in stream][-1]
    for usage in (whole.usage_metadata, last.usage_metadata):
        assert usage is not None
        assert (usage.prompt_token_count, usage.cached_content_token_count) == (1000, 600)
        assert (usage.candidates_token_count, usage.thoughts_token_count) == (30, 20)
        assert usage.total_token_count == 1050
    for call in emulator.record()["calls"]:
        assert (call["protocol"], call["operation"], call["model"]) == ("google", "generate", "m")
        assert (call["output_tokens"], call["reasoning_tokens"], call["cached_tokens"]) == (50, 20, 600)
    assert [call["stream"] for call in emulator.record()["calls"]] == [False, True]


async def test_a_stream_gives_the_same_text(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(chunk_ms=1)
    chunks = list(client.models.generate_content_stream(model="m", contents="Hello"))
    assert "".join(chunk.text or "" for chunk in chunks) == "Hello from the emulator."
    reasons = [chunk.candidates[0].finish_reason for chunk in chunks if chunk.candidates]
    assert reasons == [None] * (len(chunks) - 1) + [types.FinishReason.STOP]
    stream = await client.aio.models.generate_content_stream(model="m", contents="Hello")
    assert "".join([chunk.text or "" async for chunk in stream]) == "Hello from the emulator."


def test_a_stream_without_events_is_an_array(emulator: Emulator) -> None:
    chunks = post(emulator, "streamGenerateContent").json()
    assert "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks).startswith("Hello")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_demanded_function_is_called_and_its_response_taken(client: genai.Client, streamed: bool) -> None:
    config = types.GenerateContentConfig(
        tools=[WEATHER],
        tool_config=DEMANDED,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    if streamed:
        (answer,) = client.models.generate_content_stream(model="m", contents="Hello", config=config)
    else:
        answer = client.models.generate_content(model="m", contents="Hello", config=config)
    assert answer.function_calls is not None
    (call,) = answer.function_calls
    assert (call.name, call.args) == ("weather", {"city": "text"})
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    called = answer.candidates[0].content
    assert called is not None
    said: list[types.Content] = [types.Content(role="user", parts=[types.Part(text="Hello")]), called]
    with pytest.raises(errors.ClientError, match="number of function response parts"):
        client.models.generate_content(
            model="m", contents=[*said, types.Content(role="user", parts=[types.Part(text="and?")])]
        )
    response = types.Part.from_function_response(name="weather", response={"sky": "rain"})
    said.append(types.Content(role="user", parts=[response]))
    assert client.models.generate_content(model="m", contents=list(said)).text == "Hello from the emulator."


def test_structured_output_fits_either_kind_of_schema(client: genai.Client) -> None:
    for schema in ({"response_schema": Trip}, {"response_json_schema": Trip.model_json_schema()}):
        config = types.GenerateContentConfig.model_validate({"response_mime_type": "application/json", **schema})
        answer = client.models.generate_content(model="m", contents="Where?", config=config)
        assert Trip.model_validate_json(answer.text or "") == Trip(city="text", days=1)


def test_images_go_in_and_come_out(emulator: Emulator, client: genai.Client) -> None:
    image = types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png")
    config = types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"])
    answer = client.models.generate_content(model="m", contents=["Draw this", image], config=config)
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata.prompt_token_count or 0) > 80
    assert answer.parts is not None
    blob = answer.parts[-1].inline_data
    assert blob is not None
    assert (blob.mime_type, (blob.data or b"")[:4]) == ("image/png", b"\x89PNG")
    assert emulator.record()["calls"][0]["images"] == 1


def test_thoughts_are_shown_where_asked_for(client: genai.Client) -> None:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    answer = client.models.generate_content(model="m", contents="Hello", config=config)
    assert answer.parts is not None
    assert [part.thought for part in answer.parts] == [True, None]
    assert answer.text == "Hello from the emulator."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.thoughts_token_count == 6


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({}, "MAX_TOKENS"), ({"finish_reason": "content_filter"}, "SAFETY"), ({"finish_reason": "stop"}, "STOP")],
)
def test_each_way_to_stop_has_its_reason(
    emulator: Emulator, client: genai.Client, settings: dict[str, Any], reason: str
) -> None:
    emulator.configure(**settings)
    config = types.GenerateContentConfig(max_output_tokens=2)
    answer = client.models.generate_content(model="m", contents="Hello", config=config)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == reason


@pytest.mark.parametrize(
    ("status", "expected", "name"),
    [
        (400, errors.ClientError, "INVALID_ARGUMENT"),
        (403, errors.ClientError, "PERMISSION_DENIED"),
        (404, errors.ClientError, "NOT_FOUND"),
        (429, errors.ClientError, "RESOURCE_EXHAUSTED"),
        (500, errors.ServerError, "INTERNAL"),
        (503, errors.ServerError, "UNAVAILABLE"),
        (504, errors.ServerError, "DEADLINE_EXCEEDED"),
    ],
)
async def test_errors_are_the_official_clients_errors(
    emulator: Emulator, client: genai.Client, status: int, expected: type[errors.APIError], name: str
) -> None:
    emulator.configure(error=status, error_message="as told", retry_after=2)
    with pytest.raises(expected) as raised:
        client.models.generate_content(model="m", contents="Hello")
    assert (raised.value.code, raised.value.status, raised.value.message) == (status, name, "as told")
    details = raised.value.details["error"]["details"]
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"} in details
    with pytest.raises(expected):
        [chunk async for chunk in await client.aio.models.generate_content_stream(model="m", contents="Hello")]


async def test_an_error_in_a_stream_raises_in_the_official_client(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(fault="error_midway", error=503, error_message="overheated")
    with pytest.raises(errors.ServerError, match="overheated"):
        list(client.models.generate_content_stream(model="m", contents="Hello"))
    with pytest.raises(errors.ServerError, match="overheated"):
        [chunk async for chunk in await client.aio.models.generate_content_stream(model="m", contents="Hello")]


def test_a_stream_without_usage(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(cut_stream_usage=True)
    chunks = list(client.models.generate_content_stream(model="m", contents="Hello"))
    assert [chunk.usage_metadata for chunk in chunks] == [None] * len(chunks)


def test_a_missing_key_is_forbidden_and_a_wrong_one_is_a_bad_request(emulator: Emulator) -> None:
    assert post(emulator, "generateContent", query="").json()["error"]["status"] == "PERMISSION_DENIED"
    emulator.configure(api_key="right")
    wrong = post(emulator, "generateContent").json()["error"]
    assert (wrong["code"], wrong["status"]) == (400, "INVALID_ARGUMENT")
    assert wrong["details"][0]["reason"] == "API_KEY_INVALID"
    assert post(emulator, "generateContent", query="?key=right").status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, 'Unknown name "messages"'),
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"parts": [{"image": "x"}]}]}, "at 'contents[0].parts[0]'"),
        ({"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"n": 1}}, "at 'generation_config'"),
    ],
)
def test_what_the_provider_refuses_is_refused(emulator: Emulator, body: dict[str, Any], message: str) -> None:
    response = post(emulator, "generateContent", body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_names_may_be_written_with_underscores(emulator: Emulator) -> None:
    body = {
        "system_instruction": {"parts": [{"text": "x" * 400}]},
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}]}],
        "generation_config": {"max_output_tokens": 1},
    }
    answer = post(emulator, "generateContent", body).json()
    assert answer["usageMetadata"]["promptTokenCount"] == 185
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_contents_are_embedded_alone_and_in_batches(emulator: Emulator, client: genai.Client) -> None:
    config = types.EmbedContentConfig(output_dimensionality=8)
    answer = client.models.embed_content(model="gemini-embedding-001", contents=["one", "two"], config=config)
    assert answer.embeddings is not None
    assert [len(embedding.values or ()) for embedding in answer.embeddings] == [8, 8]
    single = post(emulator, "embedContent", {"content": {"parts": [{"text": "one"}]}, "outputDimensionality": 8})
    assert single.json()["embedding"]["values"] == pytest.approx(answer.embeddings[0].values)
    calls = [(call["operation"], call["input_tokens"]) for call in emulator.record()["calls"]]
    assert calls == [("embeddings", 1), ("embeddings", 1)]


def test_counting_tokens_is_free(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(requests_per_minute=1)
    assert [client.models.count_tokens(model="m", contents="x" * 40).total_tokens for _ in range(2)] == [10, 10]
    assert emulator.record()["billed"]["input_tokens"] == 0


def test_its_own_limits_are_enforced(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(tokens_per_minute=10)
    client.models.generate_content(model="m", contents="Hello")
    with pytest.raises(errors.ClientError) as raised:
        client.models.generate_content(model="m", contents="Hello")
    assert raised.value.status == "RESOURCE_EXHAUSTED"
    assert emulator.record()["violation_counts"] == {"tokens": 1}


def test_models_are_listed(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(models=["gemini-a", "gemini-embedding-b"])
    assert [model.name for model in client.models.list()] == ["models/gemini-a", "models/gemini-embedding-b"]
    assert client.models.get(model="gemini-a").supported_actions == ["generateContent", "countTokens"]


def predict(emulator: Emulator, prompt: str = "A cat runs", **parameters: Any) -> httpx.Response:
    """The official client refuses to submit videos with an API key, though it asks after them and fetches them."""
    url = f"{emulator.root()}/v1beta/models/veo-3.1:predictLongRunning"
    body = {"instances": [{"prompt": prompt}], "parameters": parameters}
    return httpx.post(url, json=body, headers={"x-goog-api-key": "any"})


def operation_of(name: str) -> types.GenerateVideosOperation:
    return types.GenerateVideosOperation.model_validate({"name": name})


async def test_a_video_is_an_operation_until_it_is_there(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(job_polls=2)
    operation = operation_of(predict(emulator, durationSeconds=6).json()["name"])
    operation = client.operations.get(operation)
    assert not operation.done
    operation = await client.aio.operations.get(operation)
    assert operation.done
    assert operation.error is None
    assert operation.response is not None
    assert operation.response.generated_videos is not None
    (made,) = operation.response.generated_videos
    assert made.video is not None
    assert made.video.uri is not None
    name = "files/" + made.video.uri.partition("/files/")[2].partition(":")[0]
    assert client.files.download(file=name)[4:8] == b"ftyp"
    assert (await asyncio.to_thread(httpx.get, made.video.uri)).status_code == 403  # without the key
    (call,) = emulator.record()["calls"]
    assert (call["protocol"], call["operation"], call["model"], call["seconds"]) == ("google", "videos", "veo-3.1", 6)


async def test_a_filtered_video_says_why_and_is_not_billed(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(job_polls=1, job_fails=True)
    operation = operation_of(predict(emulator).json()["name"])
    operation = client.operations.get(operation)
    assert operation.response is not None
    assert operation.response.rai_media_filtered_count == 1
    assert operation.response.rai_media_filtered_reasons == ["The emulator was told to fail this video."]
    assert not operation.response.generated_videos
    assert emulator.record()["billed"]["seconds"] == 0


def test_videos_that_google_would_refuse_are_refused(emulator: Emulator, client: genai.Client) -> None:
    for parameters in ({"durationSeconds": 30}, {"resolution": "8k"}, {"aspectRatio": "1:1"}, {"fps": 3}):
        assert predict(emulator, **parameters).status_code == 400
    assert predict(emulator, prompt="").status_code == 400
    with pytest.raises(errors.ClientError, match="not found"):
        client.operations.get(operation_of("models/veo-3.1/operations/none"))
    with pytest.raises(errors.ClientError, match="may not exist"):
        client.files.download(file="files/none")


def test_polls_can_fail_for_a_while(emulator: Emulator, client: genai.Client) -> None:
    emulator.configure(job_polls=1, job_poll_errors=1)
    operation = operation_of(predict(emulator).json()["name"])
    with pytest.raises(errors.ServerError):
        client.operations.get(operation)
    assert client.operations.get(operation).done

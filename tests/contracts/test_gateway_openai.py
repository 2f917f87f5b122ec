"""The official OpenAI SDK, unmodified, at the gateway: its own models, and those of other protocols."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.gateway_server import GatewayServer, gateway_server, told

CHAT_MODELS = ("oai:chat-1", "ant:chat-1", "goo:chat-1")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Answer(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def gateway(
    server_dsn: str, template_database: str, emulator_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    data_dir: Path = tmp_path_factory.mktemp("gateway") / "data"
    with gateway_server(server_dsn, template_database, emulator_url, data_dir) as server:
        yield server


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0, timeout=30) as client:
        yield client


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_chat_is_answered_by_a_model_of_any_protocol(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "Be brief."}, *user(told(reply="Hi there."))]
    )
    assert answer.choices[0].message.content == "Hi there."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == model
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_chat_is_streamed_from_a_model_of_any_protocol(client: OpenAI, model: str) -> None:
    with client.chat.completions.create(
        model=model,
        messages=user(told(reply="One two three four.", chunk_tokens=1)),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(texts) == "One two three four."
    assert len(texts) > 1
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("model", CHAT_MODELS)
async def test_async_clients_are_served_alike(gateway: GatewayServer, model: str) -> None:
    async with AsyncOpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0) as client:
        answer = await client.chat.completions.create(model=model, messages=user(told(reply="Hi.")))
        assert answer.choices[0].message.content == "Hi."
        stream = await client.chat.completions.create(model=model, messages=user(told(reply="Hi.")), stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(texts) == "Hi."


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_tool_is_called_and_its_result_taken(client: OpenAI, model: str) -> None:
    messages: Any = user(told("How is it in Paris?", tool_call={"name": "weather", "arguments": {"city": "Paris"}}))
    answer = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
        *user(told("And?", reply="It is 21 degrees.")),
    ]
    after = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert after.choices[0].message.content == "It is 21 degrees."


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_tool_call_is_streamed(client: OpenAI, model: str) -> None:
    text = told("How is it in Paris?", tool_call={"name": "weather", "arguments": {"city": "Paris"}})
    with client.chat.completions.stream(model=model, messages=user(text), tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    (call,) = final.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_structured_output_is_parsed_by_the_sdk(client: OpenAI, model: str) -> None:
    parsed = client.chat.completions.parse(model=model, messages=user("How is it?"), response_format=Answer)
    assert isinstance(parsed.choices[0].message.parsed, Answer)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_an_image_is_shown(client: OpenAI, model: str) -> None:
    parts: Any = [
        {"type": "text", "text": told("What is this?", reply="A pixel.")},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "A pixel."


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_the_responses_api_answers_and_streams(client: OpenAI, model: str) -> None:
    whole = client.responses.create(model=model, input=told(reply="Hi there."), instructions="Be brief.")
    assert whole.output_text == "Hi there."
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    with client.responses.stream(model=model, input=told(reply="One two three.")) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "One two three."
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"
    numbers = [event.sequence_number for event in events if getattr(event, "sequence_number", None) is not None]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_the_responses_api_takes_a_tools_result(client: OpenAI, model: str) -> None:
    tools: Any = [{"type": "function", "strict": False, **WEATHER["function"]}]
    asked: Any = user(told("How is it?", tool_call={"name": "weather", "arguments": {"city": "Paris"}}))
    first = client.responses.create(model=model, input=asked, tools=tools)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Paris"}
    asked += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"},
        *user(told("And?", reply="21.")),
    ]
    assert client.responses.create(model=model, input=asked, tools=tools).output_text == "21."


def test_embeddings_come_as_numbers_by_default(client: OpenAI) -> None:
    answer = client.embeddings.create(model="oai:embed-1", input=["a", "b"])
    assert [item.index for item in answer.data] == [0, 1]
    assert all(isinstance(value, float) for item in answer.data for value in item.embedding)
    as_list = client.embeddings.create(model="oai:embed-1", input=["a", "b"], encoding_format="float")
    for one, other in zip(answer.data, as_list.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
    assert answer.usage.prompt_tokens > 0


def test_images_are_generated(client: OpenAI) -> None:
    answer = client.images.generate(model="oai:image-1", prompt="a cat", n=2)
    assert answer.data is not None
    assert len(answer.data) == 2
    assert all(image.b64_json or image.url for image in answer.data)


def test_speech_is_spoken(client: OpenAI) -> None:
    sound = client.audio.speech.create(model="oai:tts-1", input="Hello", voice="alloy", response_format="wav")
    assert sound.read()


def sound(seconds: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(2 * 8000 * seconds))
    return file.getvalue()


def test_speech_is_transcribed(client: OpenAI) -> None:
    plain = client.audio.transcriptions.create(model="oai:whisper-1", file=("hello.wav", sound()))
    assert plain.text
    verbose = client.audio.transcriptions.create(
        model="oai:whisper-1", file=("hello.wav", sound()), response_format="verbose_json"
    )
    assert verbose.text == plain.text
    text = client.audio.transcriptions.create(
        model="oai:whisper-1", file=("hello.wav", sound()), response_format="text"
    )
    assert str(text).strip() == plain.text


def test_texts_are_moderated(client: OpenAI) -> None:
    answer = client.moderations.create(model="oai:moderation-1", input=["one", "two"])
    assert [result.flagged for result in answer.results] == [False, False]


def test_models_are_listed_and_found(client: OpenAI) -> None:
    refs = {model.id for model in client.models.list()}
    assert {"oai:chat-1", "ant:chat-1", "coh:rerank-1"} <= refs
    assert client.models.retrieve("oai:embed-1").owned_by == "oai"
    assert client.models.retrieve("embed-1").id == "oai:embed-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("oai:nothing")


def test_a_bare_name_is_enough_where_one_model_has_it(client: OpenAI) -> None:
    assert client.embeddings.create(model="embed-1", input="a").model == "embed-1"
    with pytest.raises(openai.BadRequestError, match=r"one of ant:chat-1, .*goo:chat-1"):
        client.chat.completions.create(model="chat-1", messages=user("Hi"))


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_bad_key_is_an_authentication_error(gateway: GatewayServer) -> None:
    with (
        OpenAI(base_url=gateway.openai_url, api_key="nonsense", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="oai:chat-1", messages=user("Hi"))


def test_a_reader_is_denied(gateway: GatewayServer) -> None:
    with (
        OpenAI(base_url=gateway.openai_url, api_key=gateway.reader_token, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="reader"),
    ):
        client.chat.completions.create(model="oai:chat-1", messages=user("Hi"))


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="oai:nothing", messages=user("Hi"))
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("parameters", "param"), [({"temperature": 3}, "temperature"), ({"extra_body": {"nonsense": 1}}, "nonsense")]
)
def test_a_bad_parameter_is_a_bad_request_that_names_it(client: OpenAI, parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError, match=param):
        client.chat.completions.create(model="oai:chat-1", messages=user("Hi"), **parameters)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (404, openai.NotFoundError)],
)
def test_an_error_of_the_provider_is_the_sdks_own(
    client: OpenAI, model: str, status: int, kind: type[Exception], stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=user(told(error=status)), stream=stream)
    assert isinstance(caught.value, openai.APIStatusError)
    assert caught.value.status_code == status
    assert caught.value.request_id == caught.value.response.headers["x-tollgate-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "kind", "status"),
    [
        ({"error": 429, "retry_after": 4000}, openai.RateLimitError, 429),
        ({"error": 500}, openai.InternalServerError, 502),
        ({"fault": "hang"}, openai.InternalServerError, 504),
    ],
)
def test_a_failure_that_does_not_pass_is_told_in_the_end(
    client: OpenAI, behaviour: dict[str, Any], kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    # What went well before closes the circuit.
    client.chat.completions.create(model="frail:chat-1", messages=user("Hi"))
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="frail:chat-1", messages=user(told(**behaviour)), stream=stream)
    assert caught.value.status_code == status
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "4000"


@pytest.mark.parametrize("fault", ["disconnect_midway", "error_midway"])
@pytest.mark.parametrize("model", CHAT_MODELS)
def test_an_error_in_the_stream_is_raised_while_it_is_read(
    gateway: GatewayServer, client: OpenAI, model: str, fault: str
) -> None:
    text = told(reply="One two three four five six.", fault=fault, chunk_ms=10)
    stream = client.chat.completions.create(model=model, messages=user(text), stream=True)
    texts = []
    with pytest.raises(openai.APIError):
        for chunk in stream:
            texts += [choice.delta.content for choice in chunk.choices]
    assert any(texts)
    # What had come is delivered, so the call is not tried again.
    request_id = stream.response.headers["x-tollgate-request-id"]
    (row,) = gateway.rows("SELECT status, attempt_count FROM model_requests WHERE id = $1", request_id)
    assert (row["status"], row["attempt_count"]) == ("FAILED", 1)


# --- what is written down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["oai", "ant", "goo"])
def test_a_call_has_its_row_its_attempt_and_its_exact_cost(
    gateway: GatewayServer, client: OpenAI, provider: str, stream: bool
) -> None:
    text = told(input_tokens=1000, output_tokens=300, cached_tokens=400)
    with client.chat.completions.with_streaming_response.create(
        model=f"{provider}:chat-1", messages=user(text), stream=stream, extra_headers={"x-tollgate-priority": "7"}
    ) as response:
        response.read()
        headers = response.headers
    request_id = headers["x-tollgate-request-id"]
    (row,) = gateway.rows("SELECT * FROM model_requests WHERE id = $1", request_id)
    assert (row["status"], row["priority"], row["usage_estimated"]) == ("COMPLETED", 7, False)
    served = gateway.served(request_id, provider)
    assert row["input_tokens"] == served["input_tokens"] == 1000
    assert row["output_tokens"] == served["output_tokens"] == 300
    assert row["cache_read_tokens"] == served["cached_tokens"] == 400
    cost = (600 * Decimal("2.5") + 400 * Decimal("1.25") + 300 * 10) / 1_000_000
    assert row["cost_total"] == cost
    if not stream:
        assert Decimal(headers["x-tollgate-cost"]) == cost
    (attempt,) = gateway.rows("SELECT * FROM request_attempts WHERE request_id = $1", request_id)
    assert (attempt["status"], attempt["number"]) == ("SUCCEEDED", 1)
    if provider != "goo":  # Google names none
        assert attempt["provider_request_id"] == served["id"]
    lines = gateway.rows("SELECT unit::text, quantity, amount FROM ledger_entries WHERE request_id = $1", request_id)
    assert {line["unit"]: line["quantity"] for line in lines} == {
        "INPUT_TOKENS": 600,
        "CACHE_READ_TOKENS": 400,
        "OUTPUT_TOKENS": 300,
    }
    assert sum(line["amount"] for line in lines) == cost


def test_each_kind_of_model_is_priced_by_its_units(gateway: GatewayServer, client: OpenAI) -> None:
    calls: dict[str, Any] = {
        "CHARACTERS": lambda: client.audio.speech.with_raw_response.create(
            model="oai:tts-1", input="Hello there", voice="alloy"
        ),
        "SECONDS": lambda: client.audio.transcriptions.with_raw_response.create(
            model="oai:whisper-1", file=("hello.wav", sound(3))
        ),
        "IMAGES": lambda: client.images.with_raw_response.generate(model="oai:image-1", prompt="a cat", n=2),
    }
    for unit, call in calls.items():
        request_id = call().headers["x-tollgate-request-id"]
        served = gateway.served(request_id)
        (row,) = gateway.rows("SELECT * FROM model_requests WHERE id = $1", request_id)
        lines = gateway.rows("SELECT * FROM ledger_entries WHERE request_id = $1", request_id)
        quantities = {line["unit"]: line["quantity"] for line in lines}
        assert quantities[unit] == Decimal(str(served[unit.lower()])) > 0, unit
        price = {"CHARACTERS": 15, "SECONDS": 100, "IMAGES": 40_000}[unit]
        assert sum(line["amount"] for line in lines if line["unit"] == unit) == quantities[unit] * price / 1_000_000
        assert row["status"] == "COMPLETED"

"""The official Anthropic SDK, unmodified, at the gateway: its own models, and those of other protocols."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

from tests.contracts.test_gateway_openai import CHAT_MODELS, PIXEL
from tests.gateway_server import GatewayServer, gateway_server, told

WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
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
def client(gateway: GatewayServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0, timeout=30) as client:
        yield client


def user(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_message_is_answered_by_a_model_of_any_protocol(client: Anthropic, model: str) -> None:
    message = client.messages.create(
        model=model, max_tokens=100, system="Be brief.", messages=user(told(reply="Hi there."))
    )
    assert text_of(message) == "Hi there."
    assert (message.stop_reason, message.model, message.role) == ("end_turn", model, "assistant")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert message._request_id


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_message_is_streamed_from_a_model_of_any_protocol(client: Anthropic, model: str) -> None:
    text = told(reply="One two three four.", chunk_tokens=1)
    with client.messages.stream(model=model, max_tokens=100, messages=user(text)) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(texts) == text_of(final) == "One two three four."
    assert len(texts) > 1
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("model", CHAT_MODELS)
async def test_async_clients_are_served_alike(gateway: GatewayServer, model: str) -> None:
    async with AsyncAnthropic(base_url=gateway.url, auth_token=gateway.token, max_retries=0) as client:
        message = await client.messages.create(model=model, max_tokens=100, messages=user(told(reply="Hi.")))
        assert text_of(message) == "Hi."
        async with client.messages.stream(model=model, max_tokens=9, messages=user(told(reply="Hi."))) as stream:
            assert "".join([text async for text in stream.text_stream]) == "Hi."


@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_taken(client: Anthropic, model: str, stream: bool) -> None:
    messages: Any = user(told("How is it in Paris?", tool_call={"name": "weather", "arguments": {"city": "Paris"}}))
    if stream:
        with client.messages.stream(model=model, max_tokens=500, messages=messages, tools=[WEATHER]) as events:
            answer: Any = events.get_final_message()
    else:
        answer = client.messages.create(model=model, max_tokens=500, messages=messages, tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert (use.name, use.input) == ("weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
    messages += [
        {"role": "assistant", "content": answer.content},
        *user([result, {"type": "text", "text": told("And?", reply="It is 21 degrees.")}]),
    ]
    after = client.messages.create(model=model, max_tokens=500, messages=messages, tools=[WEATHER])
    assert text_of(after) == "It is 21 degrees."


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_structured_output_is_parsed_by_the_sdk(client: Anthropic, model: str) -> None:
    message = client.messages.parse(model=model, max_tokens=500, messages=user("How is it?"), output_format=Answer)
    assert isinstance(message.parsed_output, Answer)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_an_image_is_shown(client: Anthropic, model: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    text = {"type": "text", "text": told("What is this?", reply="A pixel.")}
    message = client.messages.create(model=model, max_tokens=100, messages=user([image, text]))
    assert text_of(message) == "A pixel."


def test_tokens_are_counted_by_an_estimate_that_says_so(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.count_tokens(model="oai:chat-1", messages=user("Hello " * 100))
    assert 100 <= raw.parse().input_tokens <= 200
    assert raw.headers["x-tollgate-estimated"] == "true"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="oai:nothing", messages=user("Hi"))


def test_models_are_listed_page_by_page_and_found(client: Anthropic) -> None:
    refs = [model.id for model in client.models.list(limit=2)]  # the SDK asks for the next page by itself
    assert {"oai:chat-1", "ant:chat-1", "coh:rerank-1"} <= set(refs)
    assert len(refs) == len(set(refs))
    assert client.models.retrieve("ant:chat-1").display_name == "chat-1"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("ant:nothing")
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.models.list(limit=0)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_bad_key_is_an_authentication_error(gateway: GatewayServer) -> None:
    with (
        Anthropic(base_url=gateway.url, api_key="nonsense", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="ant:chat-1", max_tokens=10, messages=user("Hi"))


def test_a_reader_is_denied(gateway: GatewayServer) -> None:
    with (
        Anthropic(base_url=gateway.url, api_key=gateway.reader_token, max_retries=0) as client,
        pytest.raises(anthropic.PermissionDeniedError, match="reader"),
    ):
        client.messages.create(model="ant:chat-1", max_tokens=10, messages=user("Hi"))


def test_an_unknown_model_is_not_found(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="ant:nothing", max_tokens=10, messages=user("Hi"))
    assert caught.value.type == "not_found_error"


@pytest.mark.parametrize(("name", "value"), [("temperature", 3), ("nonsense", 1)])
def test_a_bad_parameter_is_a_bad_request_that_names_it(client: Anthropic, name: str, value: int) -> None:
    with pytest.raises(anthropic.BadRequestError, match=name):
        client.messages.create(model="ant:chat-1", max_tokens=10, messages=user("Hi"), extra_body={name: value})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize(("status", "kind"), [(400, anthropic.BadRequestError), (404, anthropic.NotFoundError)])
def test_an_error_of_the_provider_is_the_sdks_own(
    client: Anthropic, model: str, status: int, kind: type[anthropic.APIStatusError], stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.messages.create(model=model, max_tokens=10, messages=user(told(error=status)), stream=stream)
    assert caught.value.request_id == caught.value.response.headers["x-tollgate-request-id"]


@pytest.mark.parametrize("fault", ["disconnect_midway", "error_midway"])
@pytest.mark.parametrize("model", CHAT_MODELS)
def test_an_error_in_the_stream_is_raised_while_it_is_read(client: Anthropic, model: str, fault: str) -> None:
    # What has come is delivered, so the call is not tried again.
    text = told(reply="One two three four five six.", fault=fault, chunk_ms=10)
    texts = []
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(model=model, max_tokens=100, messages=user(text)) as stream,
    ):
        for piece in stream.text_stream:
            texts += [piece]
    assert any(texts)


def test_a_call_across_protocols_is_accounted_exactly(gateway: GatewayServer, client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="oai:chat-1",
        max_tokens=500,
        messages=user(told(input_tokens=1000, output_tokens=300, cached_tokens=400)),
    )
    message = raw.parse()
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (600, 400)
    (row,) = gateway.rows("SELECT * FROM model_requests WHERE id = $1", raw.headers["x-tollgate-request-id"])
    served = gateway.served(row["id"])
    assert (row["input_tokens"], row["output_tokens"]) == (served["input_tokens"], served["output_tokens"])
    assert row["cost_total"] == Decimal(raw.headers["x-tollgate-cost"])

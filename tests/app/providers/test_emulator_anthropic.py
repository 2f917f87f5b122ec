"""The emulator's Anthropic protocol, as the official client sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from tests.emulator import Emulator

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello, world!"}]
WEATHER: ToolParam = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Trip(BaseModel):
    city: str
    days: int


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="any", base_url=emulator.root(), max_retries=0) as client:
        yield client


@pytest.fixture
def blocking(emulator: Emulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="any", base_url=emulator.root(), max_retries=0) as client:
        yield client


def post(emulator: Emulator, headers: dict[str, str], **body: Any) -> httpx.Response:
    asked = {"model": "m", "max_tokens": 100, "messages": HELLO, **body}
    return httpx.post(f"{emulator.root()}/v1/messages", json=asked, headers=headers)


def test_a_message_is_what_the_official_client_expects(blocking: anthropic.Anthropic) -> None:
    response = blocking.messages.with_raw_response.create(model="claude", max_tokens=100, messages=HELLO)
    message = response.parse()
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", "claude")
    (block,) = message.content
    assert block.type == "text"
    assert block.text == "Hello from the emulator."
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 6)
    assert response.headers["request-id"].startswith("req_")


async def test_cached_tokens_are_beside_the_input_tokens(emulator: Emulator, client: anthropic.AsyncAnthropic) -> None:
    emulator.configure(input_tokens=1000, cached_tokens=600, cache_write_tokens=300, output_tokens=50)
    message = await client.messages.create(model="m", max_tokens=100, messages=HELLO)
    async with client.messages.stream(model="m", max_tokens=100, messages=HELLO) as stream:
        streamed = await stream.get_final_message()
    for usage in (message.usage, streamed.usage):
        assert usage.input_tokens == 100
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (600, 300)
        assert usage.output_tokens == 50
    for call in emulator.record()["calls"]:
        assert (call["protocol"], call["operation"]) == ("anthropic", "messages")
        assert (call["input_tokens"], call["cached_tokens"], call["cache_write_tokens"]) == (1000, 600, 300)


async def test_a_stream_has_the_protocols_events_in_order(client: anthropic.AsyncAnthropic) -> None:
    stream = await client.messages.create(model="m", max_tokens=100, messages=HELLO, stream=True)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    text = "".join(
        event.delta.text for event in events if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )
    assert text == "Hello from the emulator."
    assert events[-2].type == "message_delta"
    assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("end_turn", 6)


def test_a_stream_pings(emulator: Emulator) -> None:
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    text = post(emulator, headers, stream=True).text
    assert text.count('event: ping\ndata: {"type":"ping"}\n\n') == 1


async def test_a_demanded_tool_is_used_and_its_result_taken(client: anthropic.AsyncAnthropic) -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 100, "tools": [WEATHER]}
    message = await client.messages.create(**asked, messages=HELLO, tool_choice={"type": "any"})
    (block,) = message.content
    assert message.stop_reason == "tool_use"
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("weather", {"city": "text"})
    said: list[MessageParam] = [*HELLO, {"role": "assistant", "content": message.content}]
    with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks"):
        await client.messages.create(**asked, messages=[*said, {"role": "user", "content": "and?"}])
    said.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"}]})
    assert (await client.messages.create(**asked, messages=said)).stop_reason == "end_turn"
    with pytest.raises(anthropic.BadRequestError, match="must have a corresponding `tool_use`"):
        await client.messages.create(**asked, messages=said[2:])


async def test_the_input_of_a_streamed_tool_comes_in_parts(
    emulator: Emulator, client: anthropic.AsyncAnthropic
) -> None:
    order = {"name": "weather", "arguments": {"city": "Reykjavík"}}
    emulator.configure(tool_call=[order, {"name": "clock"}], reply="One moment.")
    async with client.messages.stream(model="m", max_tokens=100, messages=HELLO) as stream:
        parts = [event.partial_json async for event in stream if event.type == "input_json"]
        message = await stream.get_final_message()
    assert json.loads("".join(parts)) == {"city": "Reykjavík"}
    assert len(parts) > 3
    assert message.stop_reason == "tool_use"
    kinds = [(block.type, getattr(block, "input", None)) for block in message.content]
    assert kinds == [("text", None), ("tool_use", {"city": "Reykjavík"}), ("tool_use", {})]


async def test_thinking_is_shown_where_enabled_and_comes_back_as_it_was(
    emulator: Emulator, client: anthropic.AsyncAnthropic
) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "max_tokens": 2000,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    message = await client.messages.create(**asked, messages=HELLO)
    thinking, text = message.content
    assert (thinking.type, text.type) == ("thinking", "text")
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 6
    async with client.messages.stream(**asked, messages=HELLO) as stream:
        streamed = [block.to_dict() for block in (await stream.get_final_message()).content]
    assert streamed == [block.to_dict() for block in message.content]
    said: list[MessageParam] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "Go on"},
    ]
    await client.messages.create(**asked, messages=said)
    assert thinking.type == "thinking"
    thinking.thinking += "!"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
        await client.messages.create(**asked, messages=said)
    assert emulator.record()["calls"][0]["reasoning_tokens"] == 6


async def test_an_image_costs_tokens_and_has_to_have_a_source(client: anthropic.AsyncAnthropic) -> None:
    def said(source: Any) -> list[MessageParam]:
        content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
        return [{"role": "user", "content": content}]

    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    message = await client.messages.create(model="m", max_tokens=100, messages=said(source))
    assert message.usage.input_tokens > 80
    with pytest.raises(anthropic.BadRequestError, match="source"):
        await client.messages.create(model="m", max_tokens=100, messages=said({"type": "base64"}))


async def test_structured_output_fits_the_schema(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.parse(model="m", max_tokens=100, messages=HELLO, output_format=Trip)
    assert message.parsed_output == Trip(city="text", days=1)


async def test_each_way_to_stop_has_its_reason(emulator: Emulator, client: anthropic.AsyncAnthropic) -> None:
    cut = await client.messages.create(model="m", max_tokens=2, messages=HELLO)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
    stopped = await client.messages.create(model="m", max_tokens=100, messages=HELLO, stop_sequences=["from"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "from")
    emulator.configure(finish_reason="content_filter")
    refused = await client.messages.create(model="m", max_tokens=100, messages=HELLO)
    assert refused.stop_reason == "refusal"


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (504, anthropic.APIStatusError, "timeout_error"),
        (529, anthropic.APIStatusError, "overloaded_error"),
    ],
)
async def test_errors_are_the_official_clients_errors(
    emulator: Emulator,
    client: anthropic.AsyncAnthropic,
    status: int,
    expected: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    emulator.configure(error=status, error_message="as told", retry_after=2)
    with pytest.raises(expected) as raised:
        await client.messages.create(model="m", max_tokens=100, messages=HELLO)
    assert raised.value.status_code == status
    id = raised.value.response.headers["request-id"]
    assert raised.value.body == {
        "type": "error",
        "error": {"type": kind, "message": "as told"},
        "request_id": id,
    }
    assert raised.value.request_id == id
    assert raised.value.response.headers["retry-after"] == "2"


async def test_a_stream_that_breaks_raises_in_the_official_client(
    emulator: Emulator, client: anthropic.AsyncAnthropic
) -> None:
    for fault, expected in (("error_midway", anthropic.APIStatusError), ("disconnect", anthropic.APIConnectionError)):
        emulator.configure(fault=fault, error_message="overheated", error=529)
        with pytest.raises(expected):
            async with client.messages.stream(model="m", max_tokens=100, messages=HELLO) as stream:
                await stream.get_final_message()


async def test_a_stream_without_usage(emulator: Emulator, client: anthropic.AsyncAnthropic) -> None:
    emulator.configure(cut_stream_usage=True)
    stream = await client.messages.create(model="m", max_tokens=100, messages=HELLO, stream=True)
    sent = [event.to_dict() async for event in stream]
    assert "usage" not in json.dumps(sent)
    assert (await client.messages.create(model="m", max_tokens=100, messages=HELLO)).usage.input_tokens == 3


def test_a_key_and_a_version_are_needed(emulator: Emulator) -> None:
    version = {"anthropic-version": "2023-06-01"}
    missing = post(emulator, version)
    assert (missing.status_code, missing.json()["error"]["type"]) == (401, "authentication_error")
    unversioned = post(emulator, {"x-api-key": "any"})
    assert unversioned.json()["error"]["message"] == "anthropic-version: header is required"
    emulator.configure(api_key="right")
    assert post(emulator, {"x-api-key": "wrong", **version}).status_code == 401
    assert post(emulator, {"x-api-key": "right", **version}).status_code == 200
    assert post(emulator, {"authorization": "Bearer right", **version}).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"stream_options": {}}, "stream_options: Extra inputs are not permitted"),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"name": "x"}]}, "input_schema: Field required"),
    ],
)
def test_what_the_provider_refuses_is_refused(emulator: Emulator, body: dict[str, Any], message: str) -> None:
    response = post(emulator, {"x-api-key": "any", "anthropic-version": "2023-06-01"}, **body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_its_own_limits_are_enforced(emulator: Emulator, client: anthropic.AsyncAnthropic) -> None:
    emulator.configure(requests_per_minute=1)
    await client.messages.create(model="m", max_tokens=100, messages=HELLO)
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.create(model="m", max_tokens=100, messages=HELLO)
    assert emulator.record()["violation_counts"] == {"requests": 1}


async def test_counting_tokens_is_free(emulator: Emulator, client: anthropic.AsyncAnthropic) -> None:
    emulator.configure(requests_per_minute=1, max_parallel=1)
    for _ in range(2):
        count = await client.messages.count_tokens(model="m", messages=HELLO, system="Be brief")
        assert count.input_tokens == 5
    record = emulator.record()
    assert (record["billed"]["input_tokens"], record["parallel"], record["violations"]) == (0, 0, [])


async def test_models_are_listed_to_each_client_in_its_own_shape(
    emulator: Emulator, client: anthropic.AsyncAnthropic
) -> None:
    emulator.configure(models=["claude-a", "claude-b"])
    assert [model.id async for model in client.models.list()] == ["claude-a", "claude-b"]
    assert (await client.models.retrieve("claude-a")).display_name == "Claude A"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-c")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(model="claude-c", max_tokens=100, messages=HELLO)
    async with httpx.AsyncClient(headers={"authorization": "Bearer any"}) as http:
        listed = (await http.get(f"{emulator.url()}/models")).json()
    assert listed["object"] == "list"

"""The adapters of Anthropic, Google and Cohere over real HTTP, against the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.errors import InvalidRequest, ProviderError, ProviderUnavailable, RateLimited
from app.prices.records import Usage
from app.providers.adapter import Adapter, ModelCall, ModelResponse, WireResponse
from app.providers.anthropic import AnthropicAdapter
from app.providers.cohere import CohereAdapter
from app.providers.collect import Collector
from app.providers.google import GoogleAdapter
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
from app.providers.operations import (
    ChatRequest,
    EmbeddingOutput,
    EmbeddingRequest,
    FinishReason,
    OperationRequest,
    RerankOutput,
    RerankRequest,
)
from app.providers.sse import EventDecoder
from tests.app.providers.calls import chat, model_call, only_choice
from tests.emulator import Emulator

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


class Speaker:
    """Makes calls of one adapter, as a whole or streamed."""

    def __init__(self, adapter: Adapter, emulator: Emulator, *, stream: bool) -> None:
        self.adapter = adapter
        self.emulator = emulator
        self.stream = stream
        version = {"google": "/v1beta", "cohere": "/v2"}.get(adapter.name, "")
        self._base_url = emulator.root() + version
        self._client = httpx.Client(timeout=30)

    def call(self, request: OperationRequest, parameters: dict[str, Any] | None = None) -> ModelResponse:
        # The default sends no thoughts back of a model that is told apart by its name.
        call = model_call(request, parameters, model_id="gemini-2.5-flash", base_url=self._base_url, stream=self.stream)
        wire = self.adapter.render(call)
        with self._client.stream("POST", wire.url, headers=dict(wire.headers), content=wire.body) as response:
            if self.stream and response.status_code == 200:
                return self._collect(call, response)
            body = response.read()
        answer = WireResponse(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)
        parsed = self.adapter.parse(call, answer)
        assert isinstance(parsed, ModelResponse)
        return replace(parsed, provider_request_id=None)

    def _collect(self, call: ModelCall, response: httpx.Response) -> ModelResponse:
        reader, decoder, collector = self.adapter.stream_reader(call), EventDecoder(), Collector()
        for piece in response.iter_raw():
            for event, data in decoder.feed(piece):
                for chunk in reader.read(event, data):
                    collector.add(chunk)
        reader.end()
        return collector.response()

    def close(self) -> None:
        self._client.close()


@pytest.fixture(params=[AnthropicAdapter(), GoogleAdapter()], ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def speaker(adapter: Adapter, request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Speaker]:
    speaker = Speaker(adapter, emulator, stream=request.param)
    yield speaker
    speaker.close()


def test_text_and_its_counts(speaker: Speaker) -> None:
    speaker.emulator.configure(input_tokens=1000, output_tokens=50, cached_tokens=600)
    response = speaker.call(chat("Hello"))
    choice = only_choice(response.output)
    assert choice.text
    assert choice.finish_reason is FinishReason.STOP
    assert response.usage == Usage(1000, 50, cache_read_tokens=600)
    assert response.response_model == "gemini-2.5-flash"


def test_reasoning_and_tool_calls_go_back_with_their_proof(speaker: Speaker) -> None:
    speaker.emulator.configure(reasoning="I should look it up.", reasoning_tokens=5)
    asked = Message(Role.USER, [Text("Which city is it?"), Image(data="aGk=", media_type="image/png")])
    tools = [Tool("find_city", "Finds it.", SCHEMA)]
    first = speaker.call(ChatRequest([asked], tools, ToolChoice(ToolMode.REQUIRED)), THINKING)
    choice = only_choice(first.output)
    assert choice.finish_reason is FinishReason.TOOL_CALLS
    assert any(isinstance(part, Reasoning) and part.text == "I should look it up." for part in choice.parts)
    [made] = choice.tool_calls
    assert isinstance(made, ToolCall)
    assert made.name == "find_city"
    assert set(json.loads(made.arguments)) == {"city"}
    assert first.usage is not None
    assert first.usage.reasoning_tokens == 5
    answered = Message(Role.TOOL, [ToolResult(made.id, "Bern")])
    conversation = [asked, Message(Role.ASSISTANT, choice.parts), answered, Message(Role.USER, [Text("Sure?")])]
    second = speaker.call(ChatRequest(conversation, tools), THINKING)
    assert only_choice(second.output).finish_reason is FinishReason.STOP


def test_structured_output_fits_its_schema(speaker: Speaker) -> None:
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, name="place", schema=SCHEMA)
    response = speaker.call(chat("Where?", response_format=wanted))
    assert set(json.loads(only_choice(response.output).text)) == {"city"}


def test_maximum_and_stop_sequences_are_kept(speaker: Speaker) -> None:
    speaker.emulator.configure(reply="one two three four five six seven eight nine ten")
    assert only_choice(speaker.call(chat("x"), {"max_tokens": 3}).output).finish_reason is FinishReason.LENGTH
    assert only_choice(speaker.call(chat("x"), {"stop": "four"}).output).text.strip() == "one two three"


def test_filtered_answer_is_told(speaker: Speaker) -> None:
    speaker.emulator.configure(finish_reason="content_filter")
    assert only_choice(speaker.call(chat("x")).output).finish_reason is FinishReason.CONTENT_FILTER


def test_missing_usage_is_none(speaker: Speaker) -> None:
    speaker.emulator.configure(missing_usage=True)
    assert speaker.call(chat("x")).usage is None


@pytest.mark.parametrize(("status", "error"), [(400, InvalidRequest), (429, RateLimited), (503, ProviderUnavailable)])
def test_errors_are_told_apart(speaker: Speaker, status: int, error: type[ProviderError]) -> None:
    speaker.emulator.configure(error=status, retry_after=4)
    with pytest.raises(error) as caught:
        speaker.call(chat("x"))
    assert caught.value.http_status == status
    assert status == 400 or caught.value.retry_after_seconds == 4


def test_embeddings_have_the_dimensions_asked_for(emulator: Emulator) -> None:
    speaker = Speaker(GoogleAdapter(), emulator, stream=False)
    output = speaker.call(EmbeddingRequest(["a", "b"]), {"dimensions": 8}).output
    speaker.close()
    assert isinstance(output, EmbeddingOutput)
    assert [len(vector) for vector in output.vectors] == [8, 8]


def test_documents_are_ranked_and_searches_counted(emulator: Emulator) -> None:
    speaker = Speaker(CohereAdapter(), emulator, stream=False)
    request = RerankRequest("a duck on a lake", ["a tax form", "a duck on a lake", "a lake"])
    response = speaker.call(request, {"top_n": 2})
    speaker.close()
    assert isinstance(response.output, RerankOutput)
    assert [document.index for document in response.output.results] == [1, 2]
    assert response.usage == Usage(searches=1)

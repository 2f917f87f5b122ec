"""What the conformance suite runs on: each wire protocol, and calls over the real transport to the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from app.providers.adapter import Adapter, ModelCall, ModelResponse, Unfinished
from app.providers.anthropic import AnthropicAdapter
from app.providers.cohere import CohereAdapter
from app.providers.collect import Collector
from app.providers.google import GoogleAdapter
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.responses_client import OpenAIResponsesAdapter
from app.providers.operations import Chunk, OperationRequest
from app.providers.sse import EventDecoder
from app.providers.transport import Transport
from tests.emulator import Emulator

READ_SECONDS = 10.0


@dataclass(frozen=True)
class Protocol:
    """`path` follows the emulator's root for a provider.

    `counts_writes`, `counts_reasoning`: whether the protocol tells these tokens apart from the others.
    `lacks_statuses` are those it never answers with; `names_requests`: its answers have an id in their headers.
    """

    adapter: Adapter
    path: str
    counts_writes: bool = True
    counts_reasoning: bool = True
    lacks_statuses: frozenset[int] = frozenset()
    names_requests: bool = True
    model_id: str = "model-1"

    def __str__(self) -> str:
        return self.adapter.name


OPENAI = Protocol(OpenAIAdapter(), "/v1")
RESPONSES = Protocol(OpenAIResponsesAdapter(), "/v1")
ANTHROPIC = Protocol(AnthropicAdapter(), "")
GOOGLE = Protocol(
    GoogleAdapter(),
    "/v1beta",
    counts_writes=False,
    # https://cloud.google.com/apis/design/errors (2026-11-20)
    lacks_statuses=frozenset({408, 413, 422, 529}),
    names_requests=False,
)
COHERE = Protocol(CohereAdapter(), "/v2")

PROTOCOLS = (OPENAI, RESPONSES, ANTHROPIC, GOOGLE, COHERE)


class Caller:
    """Calls the emulator by one protocol, whole or streamed: whatever holds for one holds for the other."""

    def __init__(self, protocol: Protocol, transport: Transport, emulator: Emulator, *, streams: bool) -> None:
        self.protocol = protocol
        self.emulator = emulator
        self.streams = streams
        self._transport = transport

    async def call(
        self,
        request: OperationRequest,
        parameters: Mapping[str, Any] | None = None,
        *,
        read_seconds: float = READ_SECONDS,
    ) -> ModelResponse:
        if not self.streams:
            return await self._whole(self._model_call(request, parameters), read_seconds)
        collector = Collector()
        for chunk in await self.chunks(request, parameters, read_seconds=read_seconds):
            collector.add(chunk)
        return collector.response()

    async def chunks(
        self,
        request: OperationRequest,
        parameters: Mapping[str, Any] | None = None,
        *,
        read_seconds: float = READ_SECONDS,
    ) -> list[Chunk]:
        call = self._model_call(request, parameters)
        adapter = self.protocol.adapter
        async with self._transport.stream(
            adapter.render(call), connect_seconds=READ_SECONDS, read_seconds=read_seconds, send_by=None
        ) as response:
            if response.status != 200:
                adapter.parse(call, await response.whole())
                raise AssertionError(f"status {response.status} is no error to {adapter.name}")
            reader, decoder = adapter.stream_reader(call), EventDecoder()
            chunks: list[Chunk] = []
            async for piece in response.pieces():
                for event in decoder.feed(piece):
                    chunks += reader.read(event.event, event.data)
        reader.end()
        return chunks

    async def _whole(self, call: ModelCall, read_seconds: float) -> ModelResponse:
        adapter = self.protocol.adapter
        request = adapter.render(call)
        while True:
            response = await self._transport.send(
                request, connect_seconds=READ_SECONDS, read_seconds=read_seconds, send_by=None
            )
            parsed = adapter.parse(call, response)
            if not isinstance(parsed, Unfinished):
                return parsed
            # The emulator's jobs are counted by polls, not by time.
            await asyncio.sleep(0)
            request = parsed.poll

    def _model_call(self, request: OperationRequest, parameters: Mapping[str, Any] | None) -> ModelCall:
        return ModelCall(
            model_id=self.protocol.model_id,
            base_url=self.emulator.root() + self.protocol.path,
            credential=SecretStr("any"),
            request=request,
            parameters=parameters or {},
            request_id="5c0de000-0000-4000-8000-000000000001",
            stream=self.streams,
        )

"""The OpenAI protocol's client side: one adapter over all its endpoints."""

from __future__ import annotations

from typing import Final

from app.errors import InvalidRequest
from app.providers.adapter import ModelCall, ModelResponse, StreamReader, Unfinished, WireRequest, WireResponse
from app.providers.openai_chat import parse_chat, render_chat
from app.providers.openai_chat_stream import ChatStreamReader
from app.providers.operations import OPERATION_OF, Operation


class OpenAIAdapter:
    """The base URL includes the version: "https://api.openai.com/v1"."""

    name: Final = "openai"
    default_base_url: Final = "https://api.openai.com/v1"
    operations: Final = frozenset({Operation.CHAT})

    def render(self, call: ModelCall) -> WireRequest:
        operation = OPERATION_OF[type(call.request)]
        if operation not in self.operations:
            raise InvalidRequest(f"the openai protocol has no {operation}")
        return render_chat(call)

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
        return parse_chat(call, response)

    def stream_reader(self, call: ModelCall) -> StreamReader:
        return ChatStreamReader(call)

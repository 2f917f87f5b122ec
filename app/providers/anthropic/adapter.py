"""Calls servers that speak Anthropic's messages.

The API version is 2023-06-01: 2026-10-21 takes sampling parameters from all models, which older models still have
(https://platform.claude.com/docs/en/api/migration-2026-10-21, 2026-11-20).
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.anthropic.answer import MessageStream, parse_message
from app.providers.anthropic.render import PROTOCOL, render_chat
from app.providers.operations import ChatRequest, Operation
from app.providers.wire import refused

API_VERSION: Final = "2023-06-01"


class AnthropicAdapter:
    """The base URL is without the version, as Anthropic's own clients have it; a trailing "/v1" is understood."""

    name: Final = "anthropic"
    default_base_url: Final = "https://api.anthropic.com"
    operations: Final = frozenset({Operation.CHAT})

    def render(self, call: ModelCall) -> WireRequest:
        if not isinstance(call.request, ChatRequest):
            raise refused("operation", f"{type(call.request).__name__} is not one of {PROTOCOL}")
        return WireRequest(
            url=call.base_url.rstrip("/").removesuffix("/v1") + "/v1/messages",
            headers={
                "x-api-key": call.credential.get_secret_value(),
                "anthropic-version": API_VERSION,
                "content-type": "application/json",
                "accept": "text/event-stream" if call.stream else "application/json",
                "x-request-id": call.request_id,
            },
            body=msgspec.json.encode(render_chat(call, call.request)),
        )

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse:
        return parse_message(response)

    def stream_reader(self, call: ModelCall) -> MessageStream:
        return MessageStream()

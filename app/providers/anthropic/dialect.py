"""The gateway's /v1/messages: what Anthropic's own clients send and expect.

https://platform.claude.com/docs/en/api/messages/create and .../api/errors (2026-11-20)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.errors import InvalidResponse, TollgateError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.anthropic.client_body import read_call
from app.providers.anthropic.encoding import empty_message, ending, error_body, wire_usage
from app.providers.anthropic.events import MessageWriter
from app.providers.bodies import retry_headers, status_of
from app.providers.dialect import Answered, ClientCall, EncodedError
from app.providers.messages import Image, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from app.providers.operations import ChatOutput, Choice
from app.providers.wire import object_from_text


class AnthropicMessagesDialect:
    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        return read_call(body)

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        if not isinstance(response.output, ChatOutput):
            raise InvalidResponse(f"{type(response.output).__name__} is no message")
        choice = response.output.choices[0] if response.output.choices else Choice(parts=[])
        blocks = [block for part in choice.parts if (block := _block(part)) is not None]
        message = {
            **empty_message(answered),
            "content": blocks,
            **ending(choice.finish_reason, _refusal(choice.parts)),
            "usage": wire_usage(usage),
        }
        return msgspec.json.encode(message), "application/json"

    def stream_writer(self, call: ClientCall, answered: Answered) -> MessageWriter:
        return MessageWriter(answered)

    def encode_error(self, error: TollgateError) -> EncodedError:
        return EncodedError(
            status=status_of(error), body=msgspec.json.encode(error_body(error)), headers=retry_headers(error)
        )


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text, "citations": None}
        case ToolCall():
            arguments = object_from_text(part.arguments)
            if arguments is None:
                raise InvalidResponse(f"the model called {part.name} with arguments that are no JSON object")
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
        case Reasoning(redacted=str(redacted)):
            return {"type": "redacted_thinking", "data": redacted}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case Refusal():
            return None  # see `ending`
        case Image() | ToolResult():
            raise InvalidResponse(f"an answer cannot hold a {type(part).__name__} part")


def _refusal(parts: list[Part]) -> str | None:
    return "".join(part.text for part in parts if isinstance(part, Refusal)) or None

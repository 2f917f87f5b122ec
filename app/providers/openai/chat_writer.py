"""A streamed chat completion as the gateway writes it.

Wire format: https://platform.openai.com/docs/api-reference/chat/streaming (checked 2026-11-20).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.dialect import Answered
from app.providers.messages import Reasoning
from app.providers.openai.errors import error_body
from app.providers.openai.usage import chat_usage
from app.providers.operations import (
    Chunk,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)

_encode: Final = msgspec.json.Encoder().encode
_TEXT: Final = b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}%b'
"""The event of a text, of which nearly all of a stream are."""


class ChatStreamWriter:
    """Writes one stream: an event per chunk, and the usage where the client asked for it."""

    def __init__(self, answered: Answered, *, includes_usage: bool) -> None:
        head = {
            "id": f"chatcmpl-{answered.request_id}",
            "object": "chat.completion.chunk",
            "created": int(answered.created_at.timestamp()),
            "model": answered.model,
        }
        # All chunks begin and end alike: only their choice is encoded.
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if includes_usage else b"]}\n\n"
        self._includes_usage = includes_usage
        self._begun: set[int] = set()

    def start(self) -> bytes:
        return b""

    def write(self, chunk: Chunk) -> bytes:
        match chunk:
            case TextDelta():
                if chunk.choice in self._begun:
                    return _TEXT % (self._head, chunk.choice, _encode(chunk.text), self._tail)
                return self._event(chunk.choice, {"content": chunk.text})
            case ReasoningDelta():
                return self._event(chunk.choice, _reasoning_delta(chunk))
            case RefusalDelta():
                return self._event(chunk.choice, {"refusal": chunk.text})
            case ToolCallDelta():
                return self._event(chunk.choice, {"tool_calls": [_tool_call_delta(chunk)]})
            case Finished():
                return self._event(chunk.choice, {}, chunk.finish_reason.value)
            case StreamStarted():
                # As OpenAI begins: the client sees at once that the answer has begun.
                return b"" if 0 in self._begun else self._event(0, {"content": ""})
            case StreamUsage():
                return b""

    def end(self, usage: Usage) -> bytes:
        if not self._includes_usage:
            return b"data: [DONE]\n\n"
        return self._head + b'],"usage":' + _encode(chat_usage(usage)) + b"}\n\ndata: [DONE]\n\n"

    def fail(self, error: TollgateError) -> bytes:
        return b"data: " + _encode({"error": error_body(error)}) + b"\n\n"

    def _event(self, choice: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        if choice not in self._begun:
            self._begun.add(choice)
            delta = {"role": "assistant", **delta}
        body = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head + _encode(body) + self._tail


def _tool_call_delta(chunk: ToolCallDelta) -> dict[str, Any]:
    if chunk.id is None:
        return {"index": chunk.index, "function": {"arguments": chunk.arguments}}
    function = {"name": chunk.name, "arguments": chunk.arguments}
    return {"index": chunk.index, "id": chunk.id, "type": "function", "function": function}


def _reasoning_delta(chunk: ReasoningDelta) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.text:
        delta["reasoning_content"] = chunk.text
    if chunk.signature or chunk.redacted:
        delta["reasoning_details"] = [reasoning_detail(Reasoning(chunk.text, chunk.signature, chunk.redacted))]
    return delta


def reasoning_detail(thought: Reasoning) -> dict[str, Any]:
    if thought.redacted is not None:
        return {"type": "reasoning.encrypted", "data": thought.redacted}
    return {"type": "reasoning.text", "text": thought.text, "signature": thought.signature}

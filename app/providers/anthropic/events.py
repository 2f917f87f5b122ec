"""Our chunks as the server-sent events of Anthropic's messages.

https://platform.claude.com/docs/en/build-with-claude/streaming (2026-11-20)
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.anthropic.encoding import empty_message, ending, error_body, wire_usage
from app.providers.dialect import Answered
from app.providers.operations import (
    Chunk,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)

_Key = tuple[type, int]


class MessageWriter:
    """Writes one message. A block ends where the next one begins; the usage stands in the last event but one."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._next_index = 0
        self._open: _Key | None = None
        self._tools: dict[int, int] = {}  # their blocks
        self._refusals: list[str] = []
        self._finish_reason: FinishReason | None = None

    def start(self) -> bytes:
        return _event("message_start", message=empty_message(self._answered))

    def write(self, chunk: Chunk) -> bytes:
        match chunk:
            case TextDelta():
                block = {"type": "text", "text": "", "citations": None}
                return self._delta((TextDelta, 0), block, {"type": "text_delta", "text": chunk.text})
            case ReasoningDelta():
                return self._reasoning(chunk)
            case ToolCallDelta():
                return self._tool_call(chunk)
            case RefusalDelta():
                self._refusals.append(chunk.text)
            case Finished():
                self._finish_reason = chunk.finish_reason
            case StreamStarted() | StreamUsage():
                pass
            case _:
                assert_never(chunk)
        return b""

    def end(self, usage: Usage) -> bytes:
        delta = ending(self._finish_reason, "".join(self._refusals) or None)
        return self._stop() + _event("message_delta", delta=delta, usage=wire_usage(usage)) + _event("message_stop")

    def fail(self, error: TollgateError) -> bytes:
        return b"event: error\ndata: " + msgspec.json.encode(error_body(error)) + b"\n\n"

    def _reasoning(self, chunk: ReasoningDelta) -> bytes:
        if chunk.redacted is not None:
            stopped = self._stop()
            return (
                stopped + self._begin(None, {"type": "redacted_thinking", "data": chunk.redacted}) + self._stop_last()
            )
        written = b""
        key = (ReasoningDelta, 0)
        block = {"type": "thinking", "thinking": "", "signature": ""}
        if chunk.text:
            written += self._delta(key, block, {"type": "thinking_delta", "thinking": chunk.text})
        if chunk.signature is not None:
            written += self._delta(key, block, {"type": "signature_delta", "signature": chunk.signature})
            written += self._stop()
        return written

    def _tool_call(self, chunk: ToolCallDelta) -> bytes:
        written = b""
        index = self._tools.get(chunk.index)
        if index is None:
            written = self._stop()
            index = self._tools[chunk.index] = self._next_index
            block = {"type": "tool_use", "id": chunk.id or "", "name": chunk.name or "", "input": {}}
            written += self._begin((ToolCallDelta, chunk.index), block)
        if chunk.arguments:
            # Under its own index, be its block still open or not.
            delta = {"type": "input_json_delta", "partial_json": chunk.arguments}
            written += _event("content_block_delta", index=index, delta=delta)
        return written

    def _delta(self, key: _Key, block: dict[str, Any], delta: dict[str, Any]) -> bytes:
        begun = b"" if self._open == key else self._stop() + self._begin(key, block)
        return begun + _event("content_block_delta", index=self._next_index - 1, delta=delta)

    def _begin(self, key: _Key | None, block: dict[str, Any]) -> bytes:
        self._open = key
        self._next_index += 1
        return _event("content_block_start", index=self._next_index - 1, content_block=block)

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return self._stop_last()

    def _stop_last(self) -> bytes:
        return _event("content_block_stop", index=self._next_index - 1)


def _event(kind: str, **fields: Any) -> bytes:
    data = msgspec.json.encode({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

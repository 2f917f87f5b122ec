"""A streamed chat completion, read chunk by chunk.

Wire format: https://platform.openai.com/docs/api-reference/chat/streaming (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import ConnectionFailed, InvalidResponse
from app.providers.adapter import ModelCall
from app.providers.messages import Text
from app.providers.openai.chat import WireMessage, WireToolCall, finish_reason, made_up_id, pieces_of
from app.providers.openai.errors import error_in_stream
from app.providers.openai.usage import read_chat_usage
from app.providers.openai.wire import without_nul
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


class _DeltaChoice(Struct):
    delta: WireMessage | None = None
    index: int = 0
    finish_reason: str | None = None


class _ChunkBody(Struct):
    choices: list[_DeltaChoice] | None = None
    id: str | None = None
    model: str | None = None
    usage: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_ChunkBody).decode


class _OpenChoice:
    """What has come of one choice. `calls` maps a wire index to ours, and holds the call's wire id."""

    __slots__ = ("call_count", "calls", "is_finished")

    def __init__(self) -> None:
        self.calls: dict[int, tuple[int, str]] = {}
        self.call_count = 0
        self.is_finished = False


class ChatStreamReader:
    """Reads one stream. A stream that ends whole has `[DONE]`, or a finish reason for each of its choices."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call
        self._choices: dict[int, _OpenChoice] = {}
        self._is_started = False
        self._is_done = False

    def read(self, event: str | None, data: str) -> Sequence[Chunk]:
        if data == "[DONE]":
            self._is_done = True
            return [
                self._finished(choice, index, FinishReason.TOOL_CALLS if choice.call_count else FinishReason.STOP)
                for index, choice in self._choices.items()
                if not choice.is_finished
            ]
        body = self._body(data)
        if body.error is not None or event == "error":
            raise error_in_stream(body.error)
        chunks: list[Chunk] = []
        if not self._is_started and (body.model or body.id):
            self._is_started = True
            chunks.append(StreamStarted(body.model, body.id))
        for choice in body.choices or ():
            self._read_choice(choice, chunks)
        if body.usage is not None and (usage := read_chat_usage(body.usage)) is not None:
            chunks.append(StreamUsage(usage))
        return chunks

    def end(self) -> None:
        if self._is_done and not self._choices:
            raise InvalidResponse("the provider's stream had no choices", http_status=200)
        wanted = self._call.parameters.get("n")
        count = max(1, wanted if isinstance(wanted, int) else 1)
        finished = sum(choice.is_finished for choice in self._choices.values())
        if not self._is_done and finished < max(count, len(self._choices)):
            raise ConnectionFailed("the provider's stream ended before its answer was whole", http_status=200)

    def _body(self, data: str) -> _ChunkBody:
        try:
            if "\\u0000" in data:
                return msgspec.convert(without_nul(msgspec.json.decode(data)), _ChunkBody)
            return _decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            reason = str(error) if isinstance(error, msgspec.ValidationError) else "an event is no JSON"
            raise InvalidResponse(f"the provider's stream cannot be used: {reason}"[:500], http_status=200) from None

    def _read_choice(self, wire: _DeltaChoice, chunks: list[Chunk]) -> None:
        index = wire.index
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _OpenChoice()
        delta = wire.delta
        if delta is not None:
            if thought := delta.thought:
                chunks.append(ReasoningDelta(thought, choice=index))
            if isinstance(delta.content, str):
                if delta.content:
                    chunks.append(TextDelta(delta.content, choice=index))
            elif delta.content is not None:
                for part in pieces_of(delta.content):
                    kind = TextDelta if isinstance(part, Text) else ReasoningDelta
                    chunks.append(kind(part.text, choice=index))
            if delta.refusal:
                chunks.append(RefusalDelta(delta.refusal, choice=index))
            for position, tool_call in enumerate(delta.tool_calls or ()):
                chunks.append(self._tool_call(choice, index, tool_call, position))
        if wire.finish_reason is not None and not choice.is_finished:
            reason = finish_reason(wire.finish_reason, has_tool_calls=choice.call_count > 0)
            chunks.append(self._finished(choice, index, reason))

    def _tool_call(self, choice: _OpenChoice, choice_index: int, wire: WireToolCall, position: int) -> ToolCallDelta:
        wire_index = wire.index if wire.index is not None else position
        name = wire.function.name if wire.function is not None else None
        arguments = wire.function.arguments_text if wire.function is not None else ""
        known = choice.calls.get(wire_index)
        # Gemini's compatible endpoint gives every call index 0: another id is another call.
        if known is not None and (not wire.id or wire.id == known[1]):
            return ToolCallDelta(known[0], arguments=arguments, choice=choice_index)
        if not name:
            raise InvalidResponse("the provider's stream cannot be used: a tool call has no name", http_status=200)
        index = choice.call_count
        choice.call_count += 1
        choice.calls[wire_index] = (index, wire.id or "")
        call_id = wire.id or made_up_id(self._call, choice_index, index)
        return ToolCallDelta(index, id=call_id, name=name, arguments=arguments, choice=choice_index)

    @staticmethod
    def _finished(choice: _OpenChoice, index: int, reason: FinishReason) -> Finished:
        choice.is_finished = True
        return Finished(reason, choice=index)

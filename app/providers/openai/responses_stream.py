"""A streamed Response, read event by event.

Wire format: https://platform.openai.com/docs/api-reference/responses-streaming (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import ConnectionFailed, InvalidResponse
from app.providers.openai.errors import error_in_stream
from app.providers.openai.usage import read_responses_usage
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


class _Item(Struct):
    type: str
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    encrypted_content: str | None = None


class _Incomplete(Struct):
    reason: str | None = None


class _Response(Struct):
    id: str | None = None
    model: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: Any = None


class _Event(Struct):
    type: str
    delta: str | None = None
    item: _Item | None = None
    response: _Response | None = None
    output_index: int = 0
    summary_index: int = 0
    error: Any = None
    message: str | None = None
    code: str | None = None


_decode: Final = msgspec.json.Decoder(_Event).decode
_INCOMPLETE: Final = {"max_output_tokens": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}


class ResponsesStreamReader:
    """Reads one stream, which is whole when its last event has come. Events of no meaning to an answer are passed."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._with_arguments: set[int] = set()
        self._is_done = False

    def read(self, event: str | None, data: str) -> Sequence[Chunk]:
        body = self._body(data)
        match body.type:
            case "response.created":
                response = body.response or _Response()
                return [StreamStarted(response.model, response.id)]
            case "response.output_text.delta":
                return [TextDelta(body.delta)] if body.delta else []
            case "response.refusal.delta":
                return [RefusalDelta(body.delta)] if body.delta else []
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return [ReasoningDelta(body.delta)] if body.delta else []
            case "response.reasoning_summary_part.added":
                return [ReasoningDelta("\n\n")] if body.summary_index > 0 else []
            case "response.output_item.added":
                return self._begun(body)
            case "response.function_call_arguments.delta":
                return self._arguments(body, body.delta)
            case "response.output_item.done":
                return self._item_done(body)
            case "response.completed" | "response.incomplete":
                return self._ended(body)
            case "response.failed":
                raise error_in_stream(body.response.error if body.response is not None else None)
            case "error":
                raise error_in_stream(body.error or {"message": body.message, "code": body.code})
        return []

    def end(self) -> None:
        if not self._is_done:
            raise ConnectionFailed("the provider's stream ended before its answer was whole", http_status=200)

    def _body(self, data: str) -> _Event:
        try:
            if "\\u0000" in data:
                return msgspec.convert(without_nul(msgspec.json.decode(data)), _Event)
            return _decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            reason = str(error) if isinstance(error, msgspec.ValidationError) else "an event is no JSON"
            raise InvalidResponse(f"the provider's stream cannot be used: {reason}"[:500], http_status=200) from None

    def _begun(self, body: _Event) -> list[Chunk]:
        item = body.item
        if item is None or item.type != "function_call":
            return []
        if not item.call_id or not item.name:
            raise InvalidResponse("the provider's stream cannot be used: a tool call has no name", http_status=200)
        index = self._calls[body.output_index] = len(self._calls)
        return [ToolCallDelta(index, id=item.call_id, name=item.name)]

    def _arguments(self, body: _Event, arguments: str | None) -> list[Chunk]:
        index = self._calls.get(body.output_index)
        if index is None:
            raise InvalidResponse("the provider's stream cannot be used: arguments without a call", http_status=200)
        self._with_arguments.add(index)
        return [ToolCallDelta(index, arguments=arguments)] if arguments else []

    def _item_done(self, body: _Event) -> list[Chunk]:
        item = body.item
        if item is not None and item.type == "reasoning" and item.encrypted_content is not None:
            return [ReasoningDelta(signature=item.encrypted_content)]
        if item is not None and item.type == "function_call" and body.output_index not in self._calls:
            return [*self._begun(body), *self._arguments(body, item.arguments)]
        if (
            item is not None
            and item.type == "function_call"
            and self._calls[body.output_index] not in self._with_arguments
        ):
            return self._arguments(body, item.arguments)
        return []

    def _ended(self, body: _Event) -> list[Chunk]:
        self._is_done = True
        response = body.response or _Response()
        reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        if body.type == "response.incomplete":
            why = response.incomplete_details.reason if response.incomplete_details is not None else None
            reason = _INCOMPLETE.get(why or "", FinishReason.LENGTH)
        usage = read_responses_usage(response.usage)
        return [Finished(reason)] if usage is None else [Finished(reason), StreamUsage(usage)]

"""From what Anthropic's servers answer to ours: whole messages, streams and errors.

https://platform.claude.com/docs/en/api/messages, .../build-with-claude/streaming and .../api/errors (2026-11-20)

stop_reason                                  | finish reason
---------------------------------------------|---------------
end_turn, stop_sequence, pause_turn          | stop
max_tokens, model_context_window_exceeded    | length
tool_use                                     | tool_calls
refusal (its explanation is a Refusal part)  | content_filter
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from app.errors import ConnectionFailed, InvalidResponse, ProviderError
from app.providers.adapter import ModelResponse, WireResponse
from app.providers.anthropic import wire
from app.providers.collect import Collector
from app.providers.http_errors import error_for_status
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
from app.providers.wire import decode_answer, object_text, plain_error_text

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_STATUS_OF: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def parse_message(response: WireResponse) -> ModelResponse:
    request_id = response.headers.get("request-id")
    if not 200 <= response.status < 300:
        raise _error(response, request_id)
    message = decode_answer(wire.message_decoder, response.body, status=response.status, request_id=request_id)
    collector = Collector()
    for index, block in enumerate(message.content):
        for chunk in _block_chunks(index, block):
            collector.add(chunk)
    for chunk in _end_chunks(message.stop_reason or "end_turn", message.stop_details):
        collector.add(chunk)
    usage = message.usage.usage(is_final=True) if message.usage else None
    return replace(
        collector.response(),
        usage=usage,
        response_model=message.model,
        response_id=message.id,
        provider_request_id=request_id,
    )


class MessageStream:
    """Reads one stream. Its first usage knows the input only and is flagged as estimated; the last is exact."""

    def __init__(self) -> None:
        self._usage: wire.WireUsage | None = None
        self._blocks: dict[int, _OpenBlock] = {}
        self._has_started = False
        self._has_stopped = False

    def read(self, event: str | None, data: str) -> Sequence[Chunk]:
        if not data:
            return ()
        if event is None:
            event = decode_answer(wire.kind_decoder, data).type
        if event not in wire.KNOWN_EVENTS:
            # "ping", and events that later versions of the protocol add.
            return ()
        return list(self._chunks(decode_answer(wire.event_decoder, data)))

    def end(self) -> None:
        if not self._has_stopped:
            raise ConnectionFailed("the stream ended before the answer was whole")

    def _chunks(self, event: wire.Event) -> Iterator[Chunk]:
        match event:
            case wire.MessageStart(message=message):
                self._has_started = True
                yield StreamStarted(response_model=message.model, response_id=message.id)
                if message.usage is not None:
                    yield from self._usage_chunks(message.usage, is_final=False)
            case wire.BlockStart(index=index, content_block=block):
                self._blocks[index] = _OpenBlock(block)
                yield from _start_chunks(index, block)
            case wire.BlockDelta(index=index, delta=delta):
                yield from self._open(index).delta_chunks(index, delta)
            case wire.BlockStop(index=index):
                yield from self._open(index).stop_chunks(index)
                del self._blocks[index]
            case wire.MessageDelta(delta=delta, usage=usage):
                if delta.stop_reason is not None:
                    yield from _end_chunks(delta.stop_reason, delta.stop_details)
                if usage is not None:
                    yield from self._usage_chunks(usage, is_final=True)
            case wire.MessageStop():
                if not self._has_started:
                    raise InvalidResponse("the stream ended without a message")
                self._has_stopped = True
            case wire.ErrorEvent(error=error):
                raise _error_of_type(error, {}, None)
            case _:
                assert_never(event)

    def _open(self, index: int) -> _OpenBlock:
        block = self._blocks.get(index)
        if block is None:
            raise InvalidResponse(f"the stream tells of block {index}, which it has not begun")
        return block

    def _usage_chunks(self, usage: wire.WireUsage, *, is_final: bool) -> Iterator[Chunk]:
        self._usage = usage.after(self._usage)
        counted = self._usage.usage(is_final=is_final)
        if counted is not None:
            yield StreamUsage(counted)


class _OpenBlock:
    def __init__(self, block: wire.Block) -> None:
        self._block = block
        self._signature = block.signature if isinstance(block, wire.ThinkingBlock) else ""
        self._has_input = False

    def delta_chunks(
        self,
        index: int,
        delta: wire.TextDeltaEvent | wire.InputDelta | wire.ThinkingDelta | wire.SignatureDelta | wire.CitationsDelta,
    ) -> Iterator[Chunk]:
        match delta:
            case wire.TextDeltaEvent(text=text):
                if text:
                    yield TextDelta(text)
            case wire.InputDelta(partial_json=text):
                if text:
                    self._has_input = True
                    yield ToolCallDelta(index=index, arguments=text)
            case wire.ThinkingDelta(thinking=text):
                if text:
                    yield ReasoningDelta(text)
            case wire.SignatureDelta(signature=signature):
                self._signature += signature
            case wire.CitationsDelta():
                return
            case _:
                assert_never(delta)

    def stop_chunks(self, index: int) -> Iterator[Chunk]:
        if self._signature:
            yield ReasoningDelta(signature=self._signature)
        if isinstance(self._block, wire.ToolUseBlock) and not self._has_input:
            yield ToolCallDelta(index=index, arguments=object_text(self._block.input))


def _start_chunks(index: int, block: wire.Block) -> Iterator[Chunk]:
    match block:
        case wire.TextBlock(text=text):
            if text:
                yield TextDelta(text)
        case wire.ThinkingBlock(thinking=text):
            if text:
                yield ReasoningDelta(text)
        case wire.RedactedThinkingBlock(data=data):
            yield ReasoningDelta(redacted=data)
        case wire.ToolUseBlock(id=id_, name=name):
            yield ToolCallDelta(index=index, id=id_, name=name)
        case _:
            assert_never(block)


def _block_chunks(index: int, block: wire.Block) -> Iterator[Chunk]:
    """A whole block as the stream of it would be, so that both ways give the same parts."""
    yield from _start_chunks(index, block)
    yield from _OpenBlock(block).stop_chunks(index)


def _end_chunks(stop_reason: str, details: wire.StopDetails | None) -> Iterator[Chunk]:
    if details is not None and details.explanation:
        yield RefusalDelta(details.explanation)
    yield Finished(_FINISH_REASONS.get(stop_reason, FinishReason.STOP))


def _error(response: WireResponse, request_id: str | None) -> ProviderError:
    try:
        body = decode_answer(wire.error_decoder, response.body)
    except InvalidResponse:
        return error_for_status(
            response.status, plain_error_text(response), headers=response.headers, provider_request_id=request_id
        )
    return error_for_status(
        response.status,
        body.error.message,
        headers=response.headers,
        provider_request_id=request_id or body.request_id,
    )


def _error_of_type(error: wire.ErrorDetail, headers: Mapping[str, str], request_id: str | None) -> ProviderError:
    status = _STATUS_OF.get(error.type, 500)
    return error_for_status(status, error.message, headers=headers, provider_request_id=request_id)

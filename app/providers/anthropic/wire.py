"""The JSON that Anthropic's servers write: messages, stream events and errors."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from app.prices.records import Usage
from app.providers.wire import Count


class OutputDetails(Struct, frozen=True):
    thinking_tokens: Count = 0


class WireUsage(Struct, frozen=True):
    """In a stream the counts are cumulative, and those left out keep their earlier value."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens_details: OutputDetails | None = None

    def after(self, earlier: WireUsage | None) -> WireUsage:
        if earlier is None:
            return self
        names = self.__struct_fields__
        return WireUsage(
            **{name: mine if (mine := getattr(self, name)) is not None else getattr(earlier, name) for name in names}
        )

    def usage(self, *, is_final: bool) -> Usage | None:
        """Anthropic's `input_tokens` leaves out what was read from and written to the cache; ours includes it."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        read = self.cache_read_input_tokens or 0
        written = self.cache_creation_input_tokens or 0
        reasoning = self.output_tokens_details.thinking_tokens if self.output_tokens_details else 0
        return Usage(
            input_tokens=self.input_tokens + read + written,
            output_tokens=self.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=min(reasoning, self.output_tokens),
            estimated=not is_final,
        )


# --- content -------------------------------------------------------------------------------------------------------


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    text: str = ""


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    thinking: str = ""
    signature: str = ""


class RedactedThinkingBlock(Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    data: str


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any] = {}


Block = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock
"""Blocks of tools that the provider runs itself come only where they were asked for, which no request of ours does."""


class StopDetails(Struct, frozen=True):
    explanation: str | None = None


class WireMessage(Struct, frozen=True):
    content: list[Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: WireUsage | None = None


# --- stream --------------------------------------------------------------------------------------------------------


class TextDeltaEvent(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str


class InputDelta(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    partial_json: str


class ThinkingDelta(Struct, frozen=True, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignatureDelta(Struct, frozen=True, tag_field="type", tag="signature_delta"):
    signature: str


class CitationsDelta(Struct, frozen=True, tag_field="type", tag="citations_delta"):
    """Comes with documents only, which no request of ours holds."""


class EndDelta(Struct, frozen=True):
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    message: WireMessage


class BlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    index: int
    content_block: Block


class BlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDeltaEvent | InputDelta | ThinkingDelta | SignatureDelta | CitationsDelta


class BlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    index: int


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    delta: EndDelta
    usage: WireUsage | None = None


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    pass


class ErrorDetail(Struct, frozen=True):
    type: str = "api_error"
    message: str = ""


class ErrorBody(Struct, frozen=True):
    error: ErrorDetail
    request_id: str | None = None


class ErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    error: ErrorDetail


class EventKind(Struct, frozen=True):
    type: str


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | ErrorEvent

KNOWN_EVENTS: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)

message_decoder: Final = msgspec.json.Decoder(WireMessage)
event_decoder: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
kind_decoder: Final = msgspec.json.Decoder(EventKind)
error_decoder: Final = msgspec.json.Decoder(ErrorBody)

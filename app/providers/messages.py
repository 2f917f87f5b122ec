"""The parts of a conversation, alike for every wire protocol. Their JSON is what a request's row holds."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Text(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="text"):
    """`cache_ttl`, here and elsewhere: keep the prompt up to here that long ("5m", "1h") for later calls.

    It changes no answer, only its price. Protocols that cache by themselves have no word for it and leave it out.
    """

    text: str
    cache_ttl: str | None = None


class Image(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="image"):
    """By `url`, or as base64 `data` of `media_type`. `detail` is "low", "high" or "auto"."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None
    cache_ttl: str | None = None


class ToolCall(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool_call"):
    """`arguments` is JSON text, as the model wrote it: it need not be valid."""

    id: str
    name: str
    arguments: str
    cache_ttl: str | None = None


class ToolResult(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool_result"):
    """`tool_call_id` is that of the call it answers."""

    tool_call_id: str
    content: str
    is_error: bool = False
    cache_ttl: str | None = None


class Reasoning(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    """What a model thought. `signature` is the provider's proof of it and goes back unchanged; `redacted` is opaque."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class Refusal(Struct, frozen=True, tag_field="type", tag="refusal"):
    """The model's own refusal to answer."""

    text: str


Part = Text | Image | ToolCall | ToolResult | Reasoning | Refusal


class Message(Struct, frozen=True, omit_defaults=True):
    """`parts` in order. A TOOL message holds ToolResult parts only."""

    role: Role
    parts: list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        """Its text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function the model may call. `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache_ttl: str | None = None


class ToolMode(StrEnum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    """`name`: this tool and no other. `parallel` False: at most one call in an answer."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None
    parallel: bool | None = None


class FormatKind(StrEnum):
    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


class ResponseFormat(Struct, frozen=True, omit_defaults=True):
    """JSON_SCHEMA: the answer fits `schema`."""

    kind: FormatKind = FormatKind.TEXT
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None

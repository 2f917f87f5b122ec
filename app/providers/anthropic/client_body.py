"""From the body that a client of Anthropic's messages sends to our call.

https://platform.claude.com/docs/en/api/messages/create (2026-11-20); the names map as in render.py, the other way.
Fields that are not known here become parameters, which the adapter of the model refuses or passes on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from app.errors import ValidationError
from app.providers.bodies import convert, read_object
from app.providers.dialect import ClientCall
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
    Part,
    Reasoning,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from app.providers.operations import ChatRequest


class CacheControl(Struct, forbid_unknown_fields=True):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class TextBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str
    cache_control: CacheControl | None = None
    citations: Annotated[list[Any], Meta(max_length=0)] | None = None


class Base64Source(Struct, forbid_unknown_fields=True, tag_field="type", tag="base64"):
    media_type: str
    data: str


class UrlSource(Struct, forbid_unknown_fields=True, tag_field="type", tag="url"):
    url: str


class ImageBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="image"):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class ToolUseBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: Any = None  # a client gives an answer's blocks back whole
    toolset_name: None = None


class ToolResultBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None
    toolset_name: None = None


class ThinkingBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="redacted_thinking"):
    data: str


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class ClientMessage(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ClientTool(Struct, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ClientToolChoice(Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(Struct, forbid_unknown_fields=True):
    user_id: str | None = None


class OutputFormat(Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Body(Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)]  # 0 fills the cache and generates nothing
    messages: Annotated[list[ClientMessage], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    thinking: dict[str, Any] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: ClientToolChoice | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


_KNOWN: Final = frozenset(Body.__struct_fields__)
_MODES: Final = {
    "auto": ToolMode.AUTO,
    "any": ToolMode.REQUIRED,
    "tool": ToolMode.REQUIRED,
    "none": ToolMode.NONE,
}


def read_call(raw: bytes) -> ClientCall:
    """Raises ValidationError."""
    given = read_object(raw)
    body = convert({name: value for name, value in given.items() if name in _KNOWN}, Body)
    messages = [] if body.system is None else [Message(Role.SYSTEM, _texts(body.system))]
    for number, message in enumerate(body.messages):
        messages += _messages(f"messages[{number}]", message)
    if body.cache_control is not None:
        messages[-1] = _cache_last(messages[-1], body.cache_control.ttl)
    parameters = {name: value for name, value in given.items() if name not in _KNOWN and value is not None}
    parameters.update(_parameters(body))
    wanted = body.output_config.format if body.output_config else None
    return ClientCall(
        model=body.model,
        request=ChatRequest(
            messages=messages,
            tools=[_tool(tool) for tool in body.tools or ()],
            tool_choice=None if body.tool_choice is None else _tool_choice(body.tool_choice),
            # Anthropic's is always enforced, which is what others call strict.
            response_format=None
            if wanted is None
            else ResponseFormat(kind=FormatKind.JSON_SCHEMA, name="output", schema=wanted.schema, strict=True),
        ),
        parameters=parameters,
        stream=body.stream,
    )


def _parameters(body: Body) -> dict[str, Any]:
    tier = {"auto": "auto", "standard_only": "default"}[body.service_tier] if body.service_tier else None
    parameters = {
        "max_tokens": body.max_tokens,
        "stop": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "thinking": body.thinking,
        "user": body.metadata.user_id if body.metadata else None,
        "service_tier": tier,
        "reasoning_effort": body.output_config.effort if body.output_config else None,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _messages(at: str, message: ClientMessage) -> list[Message]:
    """Ours, in which tool results stand in messages of their own."""
    role = Role(message.role)
    if isinstance(message.content, str):
        return [Message(role, [Text(message.content)])]
    if not message.content:
        raise ValidationError(f"{at}.content", [], "a text or a list of at least one block")
    read: list[Message] = []
    for number, block in enumerate(message.content):
        part = _part(f"{at}.content[{number}]", role, block)
        of_part = Role.TOOL if isinstance(part, ToolResult) else role
        if read and read[-1].role is of_part:
            read[-1].parts.append(part)
        else:
            read.append(Message(of_part, [part]))
    return read


def _part(at: str, role: Role, block: Block) -> Part:
    match role, block:
        case _, TextBlock():
            return Text(block.text, cache_ttl=_ttl(block.cache_control))
        case Role.USER, ImageBlock(source=Base64Source() as source):
            return Image(data=source.data, media_type=source.media_type, cache_ttl=_ttl(block.cache_control))
        case Role.USER, ImageBlock(source=UrlSource() as source):
            return Image(url=source.url, cache_ttl=_ttl(block.cache_control))
        case Role.USER, ToolResultBlock():
            content = block.content if isinstance(block.content, str) else "".join(b.text for b in block.content)
            return ToolResult(block.tool_use_id, content, block.is_error, cache_ttl=_ttl(block.cache_control))
        case Role.ASSISTANT, ToolUseBlock():
            arguments = msgspec.json.encode(block.input).decode()
            return ToolCall(block.id, block.name, arguments, cache_ttl=_ttl(block.cache_control))
        case Role.ASSISTANT, ThinkingBlock():
            return Reasoning(text=block.thinking, signature=block.signature or None)
        case Role.ASSISTANT, RedactedThinkingBlock():
            return Reasoning(redacted=block.data)
        case _:
            raise ValidationError(at, type(block).__struct_config__.tag, f"a block that the {role} role can hold")


def _texts(system: str | list[TextBlock]) -> list[Part]:
    if isinstance(system, str):
        return [Text(system)]
    return [Text(block.text, cache_ttl=_ttl(block.cache_control)) for block in system]


def _tool(tool: ClientTool) -> Tool:
    return Tool(tool.name, tool.description, tool.input_schema, tool.strict, cache_ttl=_ttl(tool.cache_control))


def _tool_choice(choice: ClientToolChoice) -> ToolChoice:
    if (choice.type == "tool") != (choice.name is not None):
        raise ValidationError("tool_choice.name", choice.name, 'given with the type "tool", and only with it')
    parallel = None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use
    return ToolChoice(mode=_MODES[choice.type], name=choice.name, parallel=parallel)


def _ttl(control: CacheControl | None) -> str | None:
    return None if control is None else control.ttl


def _cache_last(message: Message, ttl: str) -> Message:
    """The whole request's cache_control stands for one at its last block."""
    *parts, last = message.parts
    if isinstance(last, Text | Image | ToolCall | ToolResult) and last.cache_ttl is None:
        last = msgspec.structs.replace(last, cache_ttl=ttl)
    return Message(message.role, [*parts, last], message.name)

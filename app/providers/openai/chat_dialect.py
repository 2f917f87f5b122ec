"""The gateway's /v1/chat/completions: from the body of OpenAI's SDK to our request, and from our answer to its own.

Wire format: https://platform.openai.com/docs/api-reference/chat (checked 2026-11-20). Reasoning travels as
`reasoning_content`, as DeepSeek and vLLM write it, and where it is signed as `reasoning_details` too, as
https://openrouter.ai/docs/use-cases/reasoning-tokens has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from app.errors import TollgateError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall, EncodedError, StreamWriter
from app.providers.messages import (
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from app.providers.openai.chat import image_url
from app.providers.openai.chat_writer import ChatStreamWriter, reasoning_detail
from app.providers.openai.client_body import (
    format_of,
    image_of,
    in_field,
    parameters_of,
    take_flag,
    take_metadata,
    take_text,
)
from app.providers.openai.errors import encode_error
from app.providers.openai.usage import chat_usage
from app.providers.operations import ChatOutput, ChatRequest, Choice, FinishReason

_encode: Final = msgspec.json.Encoder().encode

# --- the client's body ------------------------------------------------------------------------------------------------


class _Function(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str


class _ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    function: _Function | None = None
    type: str = "function"
    index: int | None = None


class _ImageUrl(Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class _CacheControl(Struct, forbid_unknown_fields=True):
    """Anthropic's word for what to keep, as clients of other gateways write it: LiteLLM's and OpenRouter's do."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class _Part(Struct, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    cache_control: _CacheControl | None = None
    refusal: str | None = None
    image_url: _ImageUrl | None = None


class _ReasoningDetail(Struct):
    type: str
    text: str | None = None
    signature: str | None = None
    data: str | None = None


class _Message(Struct, forbid_unknown_fields=True):
    """Also what an SDK sends back of an answer: `annotations`, `audio` and `function_call` are in it, and empty."""

    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[_ReasoningDetail] | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None


class _ToolFunction(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(Struct, forbid_unknown_fields=True):
    type: str
    function: _ToolFunction | None = None


class OpenAIChatDialect:
    """Parameters that are not named here go to the model as they are, whose own rules judge them."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        model = take_text(fields, "model")
        messages = in_field("messages", fields.pop("messages", None), list[_Message])
        if not messages:
            raise ValidationError("messages", [], "at least 1 message")
        for legacy in ("functions", "function_call"):
            if fields.pop(legacy, None) is not None:
                raise ValidationError(legacy, "given", "left out: use tools and tool_choice")
        request = ChatRequest(
            messages=[_message(message, f"messages[{index}]") for index, message in enumerate(messages)],
            tools=_tools(fields.pop("tools", None)),
            tool_choice=_tool_choice(fields.pop("tool_choice", None), fields.pop("parallel_tool_calls", None)),
            response_format=None
            if (wanted := fields.pop("response_format", None)) is None
            else _response_format(wanted),
        )
        stream = take_flag(fields, "stream")
        options = _stream_options(fields.pop("stream_options", None), stream=stream)
        metadata = take_metadata(fields)
        _canonicalise(fields)
        return ClientCall(model, request, parameters_of(fields), stream, options, metadata)

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, ChatOutput)
        body = {
            "id": f"chatcmpl-{answered.request_id}",
            "object": "chat.completion",
            "created": int(answered.created_at.timestamp()),
            "model": answered.model,
            "choices": [_choice(choice) for choice in output.choices],
            "usage": chat_usage(usage),
        }
        return _encode(body), "application/json"

    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter:
        return ChatStreamWriter(answered, includes_usage=bool(call.options.get("include_usage")))

    def encode_error(self, error: TollgateError) -> EncodedError:
        return encode_error(error)


def _canonicalise(fields: dict[str, Any]) -> None:
    """`max_completion_tokens` is the newer name of `max_tokens`; not to store is what is done anyway."""
    newer = fields.pop("max_completion_tokens", None)
    if newer is not None:
        if fields.get("max_tokens") not in (None, newer):
            raise ValidationError("max_tokens", fields["max_tokens"], f"left out beside max_completion_tokens {newer}")
        fields["max_tokens"] = newer
    if fields.get("store") is False:
        del fields["store"]


def _stream_options(value: Any, *, stream: bool) -> dict[str, Any]:
    if value is None:
        return {}
    if not stream or not isinstance(value, dict):
        raise ValidationError("stream_options", value, "an object, and given only with stream")
    for name, option in value.items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(option, bool | None):
            raise ValidationError(f"stream_options.{name}", option, "include_usage, true or false")
    return {"include_usage": bool(value.get("include_usage"))}


def _message(message: _Message, field: str) -> Message:
    if message.annotations or message.audio or message.function_call:
        raise ValidationError(f"{field}.audio", "given", "left out, and annotations and function_call too")
    match message.role:
        case "assistant":
            return Message(Role.ASSISTANT, _assistant(message, field), message.name)
        case "tool":
            if message.tool_call_id is None:
                raise ValidationError(f"{field}.tool_call_id", None, "given")
            _only(message, field)
            return Message(Role.TOOL, [ToolResult(message.tool_call_id, _plain_text(message.content, field))])
        case "user":
            _only(message, field)
            return Message(Role.USER, _content(message.content, field, images=True), message.name)
        case "system" | "developer":
            _only(message, field)
            return Message(Role.SYSTEM, _content(message.content, field), message.name)
    raise ValidationError(f"{field}.role", message.role, "system, developer, user, assistant or tool")


def _only(message: _Message, field: str) -> None:
    """Nothing that only an assistant says."""
    if message.role != "tool" and message.tool_call_id is not None:
        raise ValidationError(f"{field}.tool_call_id", message.tool_call_id, "left out of a message of this role")
    for name in ("tool_calls", "refusal", "reasoning_content", "reasoning_details"):
        if getattr(message, name):
            raise ValidationError(f"{field}.{name}", "given", f"left out of a message of the role {message.role}")


def _content(content: str | list[_Part] | None, field: str, *, images: bool = False) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    if not content:
        raise ValidationError(f"{field}.content", content, "a text or a list of parts")
    parts: list[Part] = []
    for index, part in enumerate(content):
        where = f"{field}.content[{index}]"
        cache_ttl = part.cache_control.ttl if part.cache_control is not None else None
        if part.type == "text" and part.text is not None:
            parts.append(Text(part.text, cache_ttl))
        elif part.type == "image_url" and part.image_url is not None and images:
            image = image_of(part.image_url.url, part.image_url.detail, f"{where}.image_url.url")
            parts.append(msgspec.structs.replace(image, cache_ttl=cache_ttl))
        else:
            raise ValidationError(f"{where}.type", part.type, "text or image_url" if images else "text")
    return parts


def _plain_text(content: str | list[_Part] | None, field: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in _content(content, field) if isinstance(part, Text))


def _assistant(message: _Message, field: str) -> list[Part]:
    parts: list[Part] = []
    if message.reasoning_details:
        parts += [_reasoning(detail, field) for detail in message.reasoning_details]
    elif message.reasoning_content:
        parts.append(Reasoning(message.reasoning_content))
    if isinstance(message.content, str):
        if message.content or not (parts or message.refusal or message.tool_calls):
            parts.append(Text(message.content))
    else:
        for index, part in enumerate(message.content or ()):
            if part.type == "text" and part.text is not None:
                parts.append(Text(part.text))
            elif part.type == "refusal" and part.refusal is not None:
                parts.append(Refusal(part.refusal))
            else:
                raise ValidationError(f"{field}.content[{index}].type", part.type, "text or refusal")
    if message.refusal:
        parts.append(Refusal(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        if call.type != "function" or call.function is None:
            raise ValidationError(f"{field}.tool_calls[{index}].type", call.type, "function, with the function called")
        parts.append(ToolCall(call.id, call.function.name, call.function.arguments))
    if not parts:
        raise ValidationError(f"{field}.content", message.content, "given, or else tool_calls")
    return parts


def _reasoning(detail: _ReasoningDetail, field: str) -> Reasoning:
    if detail.type == "reasoning.text" and detail.text is not None:
        return Reasoning(detail.text, detail.signature)
    if detail.type == "reasoning.encrypted" and detail.data is not None:
        return Reasoning(redacted=detail.data)
    raise ValidationError(f"{field}.reasoning_details", detail.type, "reasoning.text or reasoning.encrypted")


def _tools(value: Any) -> list[Tool]:
    if value is None:
        return []
    tools = []
    for index, tool in enumerate(in_field("tools", value, list[_Tool])):
        function = tool.function
        if tool.type != "function" or function is None:
            raise ValidationError(f"tools[{index}].type", tool.type, "function, with the function given")
        tools.append(Tool(function.name, function.description, function.parameters, function.strict))
    return tools


def _tool_choice(value: Any, parallel: Any) -> ToolChoice | None:
    if parallel is not None and not isinstance(parallel, bool):
        raise ValidationError("parallel_tool_calls", parallel, "true or false")
    if value is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(value, str) and value in {mode.value for mode in ToolMode}:
        return ToolChoice(ToolMode(value), parallel=parallel)
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("function"), dict):
        name = value["function"].get("name")
        if isinstance(name, str):
            return ToolChoice(ToolMode.REQUIRED, name, parallel)
    raise ValidationError("tool_choice", value, "none, auto, required or a function by its name")


def _response_format(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValidationError("response_format", value, "an object")
    return format_of(value.get("type"), value.get("json_schema"), "response_format", "response_format.json_schema")


# --- the answer -------------------------------------------------------------------------------------------------------


def _choice(choice: Choice) -> dict[str, Any]:
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[Reasoning] = []
    calls: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for part in choice.parts:
        match part:
            case Text():
                texts.append(part.text)
            case Refusal():
                refusals.append(part.text)
            case Reasoning():
                thoughts.append(part)
            case ToolCall():
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": part.id, "type": "function", "function": function})
            case Image():
                images.append({"type": "image_url", "image_url": {"url": image_url(part, "the answer")}})
            case ToolResult():
                raise AssertionError("an answer holds no result of a tool")
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (calls or refusals) else None,
        "refusal": "".join(refusals) if refusals else None,
        "annotations": [],
    }
    if thoughts:
        message["reasoning_content"] = "".join(thought.text for thought in thoughts)
        if any(thought.signature or thought.redacted for thought in thoughts):
            message["reasoning_details"] = [reasoning_detail(thought) for thought in thoughts]
    if calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": (choice.finish_reason or FinishReason.STOP).value,
    }

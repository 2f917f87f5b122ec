"""OpenAI's Responses API as a client calls it, for models that answer nowhere else.

Wire format: https://platform.openai.com/docs/api-reference/responses (checked 2026-11-20). Nothing is left in OpenAI's
store: the whole conversation goes with each call, and reasoning goes back encrypted.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct
from pydantic import SecretStr

from app.errors import InvalidRequest, InvalidResponse, ProviderError
from app.providers.adapter import ModelCall, ModelResponse, StreamReader, Unfinished, WireRequest, WireResponse
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.chat import image_url
from app.providers.openai.errors import error_in_stream
from app.providers.openai.responses_stream import ResponsesStreamReader
from app.providers.openai.usage import read_responses_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import OPERATION_OF, ChatOutput, ChatRequest, Choice, FinishReason, Operation

_PARAMETERS: Final = frozenset(
    {
        "max_tokens",
        "metadata",
        "n",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "temperature",
        "top_p",
        "user",
        "verbosity",
    }
)
_RESERVED: Final = frozenset(
    {"include", "input", "instructions", "model", "reasoning", "stream", "text", "tool_choice", "tools"}
)
_INCOMPLETE: Final = {"max_output_tokens": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}


class OpenAIResponsesAdapter:
    """Chat by the Responses API; all else as OpenAIAdapter. The base URL includes the version."""

    name: Final = "openai_responses"
    default_base_url: Final = OpenAIAdapter.default_base_url
    operations: Final = OpenAIAdapter.operations
    _others: Final = OpenAIAdapter()

    def render(self, call: ModelCall) -> WireRequest:
        if OPERATION_OF[type(call.request)] is not Operation.CHAT:
            return self._others.render(call)
        return _render(call)

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
        if OPERATION_OF[type(call.request)] is not Operation.CHAT:
            return self._others.parse(call, response)
        return _parse(response)

    def file_request(self, url: str, credential: SecretStr) -> WireRequest:
        return self._others.file_request(url, credential)

    def stream_reader(self, call: ModelCall) -> StreamReader:
        return ResponsesStreamReader()


# --- the request ----------------------------------------------------------------------------------------------------


def _render(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, ChatRequest)
    if not request.messages:
        raise InvalidRequest("messages must hold at least 1 message")
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "the Responses API")
    if body.pop("n", 1) != 1:
        raise InvalidRequest("n must be 1: a Response has one answer")
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    effort = body.pop("reasoning_effort", None)
    if effort is not None:
        body["reasoning"] = {"effort": effort}
        if effort != "none":
            # Models that do not reason refuse to be asked: https://github.com/pydantic/pydantic-ai/issues/3326
            body["include"] = ["reasoning.encrypted_content"]
    body.setdefault("store", False)
    body["model"] = call.model_id
    body["input"] = [item for index, message in enumerate(request.messages) for item in _items(message, index)]
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        _add_tool_choice(body, request.tool_choice)
    text: dict[str, Any] = {}
    if (verbosity := body.pop("verbosity", None)) is not None:
        text["verbosity"] = verbosity
    if request.response_format is not None:
        text["format"] = _format(request.response_format)
    if text:
        body["text"] = text
    if call.stream:
        body["stream"] = True
    return json_request(call, "/responses", body, accept="text/event-stream" if call.stream else "application/json")


def _items(message: Message, index: int) -> list[dict[str, Any]]:
    where = f"messages[{index}]"
    if message.name is not None:
        raise InvalidRequest(f"{where}: the Responses API has no names of participants")
    match message.role:
        case Role.SYSTEM | Role.USER:
            content = [_input_part(part, where, images=message.role is Role.USER) for part in message.parts]
            return [{"type": "message", "role": message.role.value, "content": content}]
        case Role.ASSISTANT:
            return [_assistant_item(part, where) for part in message.parts]
        case Role.TOOL:
            return [_result_item(part, where) for part in message.parts]
        case _:
            assert_never(message.role)


def _input_part(part: Part, where: str, *, images: bool) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image) and images:
        return {"type": "input_image", "image_url": image_url(part, where), "detail": part.detail or "auto"}
    raise _misplaced(part, where)


def _assistant_item(part: Part, where: str) -> dict[str, Any]:
    match part:
        case Text():
            content = {"type": "output_text", "text": part.text}
            return {"type": "message", "role": "assistant", "content": [content]}
        case Refusal():
            content = {"type": "refusal", "refusal": part.text}
            return {"type": "message", "role": "assistant", "content": [content]}
        case ToolCall():
            return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
        case Reasoning(signature=str()):
            # Without its id, which would be looked up in the store: https://github.com/vercel/ai/issues/7543
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": part.signature}
        case Reasoning():
            raise InvalidRequest(f"{where}: OpenAI takes reasoning back only with its own encrypted content")
        case _:
            raise _misplaced(part, where)


def _result_item(part: Part, where: str) -> dict[str, Any]:
    if not isinstance(part, ToolResult):
        raise _misplaced(part, where)
    # The protocol has no mark for a failed tool: the text says it.
    output = f"Error: {part.content}" if part.is_error else part.content
    return {"type": "function_call_output", "call_id": part.tool_call_id, "output": output}


def _misplaced(part: Part, where: str) -> InvalidRequest:
    kind = type(part).__struct_config__.tag
    return InvalidRequest(f"{where}: the Responses API takes no {kind} in a message of this role")


def _tool(tool: Tool) -> dict[str, Any]:
    """What chat completions leave out is not strict; here it would be."""
    body: dict[str, Any] = {"type": "function", "name": tool.name, "strict": bool(tool.strict)}
    if tool.description is not None:
        body["description"] = tool.description
    body["parameters"] = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    return body


def _add_tool_choice(body: dict[str, Any], choice: ToolChoice) -> None:
    if "tools" not in body:
        if choice.name is not None or choice.mode is ToolMode.REQUIRED:
            raise InvalidRequest("tool_choice asks for a call, and tools are empty")
        return
    if choice.name is not None:
        body["tool_choice"] = {"type": "function", "name": choice.name}
    else:
        body["tool_choice"] = choice.mode.value
    if choice.parallel is not None:
        body["parallel_tool_calls"] = choice.parallel


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind is not FormatKind.JSON_SCHEMA:
        return {"type": wanted.kind.value}
    if wanted.schema is None:
        raise InvalidRequest("response_format: a json_schema needs its schema")
    body: dict[str, Any] = {"type": "json_schema", "name": wanted.name or "answer", "schema": wanted.schema}
    body["strict"] = bool(wanted.strict)
    if wanted.description is not None:
        body["description"] = wanted.description
    return body


# --- the answer -----------------------------------------------------------------------------------------------------


class _Content(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    type: str
    content: list[_Content] | None = None
    summary: list[_Content] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Incomplete(Struct):
    reason: str | None = None


class _Response(Struct):
    status: str
    output: list[_Item]
    id: str | None = None
    model: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Response).decode


def _parse(response: WireResponse) -> ModelResponse:
    body = read_json(response, _decode, _Response)
    provider_request_id = response.headers.get("x-request-id")
    if body.status not in ("completed", "incomplete"):
        raise _failure(body, response)
    parts = [part for index, item in enumerate(body.output) for part in _parts(item, index, response)]
    reason = FinishReason.TOOL_CALLS if any(isinstance(part, ToolCall) for part in parts) else FinishReason.STOP
    if body.status == "incomplete":
        why = body.incomplete_details.reason if body.incomplete_details is not None else None
        reason = _INCOMPLETE.get(why or "", FinishReason.LENGTH)
    return ModelResponse(
        output=ChatOutput([Choice(parts, reason)]),
        usage=read_responses_usage(body.usage, provider_request_id),
        response_model=body.model,
        response_id=body.id,
        provider_request_id=provider_request_id,
    )


def _failure(body: _Response, response: WireResponse) -> ProviderError | InvalidResponse:
    if body.status == "failed":
        return error_in_stream(body.error, response.headers.get("x-request-id"))
    return invalid_answer(f"its status is {body.status!r}", response)


def _parts(item: _Item, index: int, response: WireResponse) -> list[Part]:
    match item.type:
        case "message":
            contents: list[Part] = []
            for content in item.content or ():
                if content.refusal is not None:
                    contents.append(Refusal(content.refusal))
                elif content.text:
                    contents.append(Text(content.text))
            return contents
        case "function_call" if item.call_id and item.name:
            return [ToolCall(item.call_id, item.name, item.arguments or "")]
        case "reasoning":
            thoughts = [piece.text for piece in item.summary or item.content or () if piece.text]
            if not thoughts and item.encrypted_content is None:
                return []
            return [Reasoning("\n\n".join(thoughts), item.encrypted_content)]
    raise invalid_answer(f"output[{index}] is {item.type!r}, which was not asked for", response)

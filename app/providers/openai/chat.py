"""OpenAI's chat completions, as OpenAI, xAI, DeepSeek, Mistral, vLLM, Ollama and other compatible servers speak it.

Wire format: https://platform.openai.com/docs/api-reference/chat (checked 2026-11-20).
"""

from __future__ import annotations

from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
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
from app.providers.openai.usage import read_chat_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, is_openai_itself, json_request, read_json
from app.providers.operations import ChatOutput, ChatRequest, Choice, FinishReason

PARAMETERS: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
"""Those whose effect this model of an answer can hold: `audio` and `web_search_options`, for example, are not."""

RESERVED: Final = frozenset(
    {"messages", "model", "response_format", "stream", "stream_options", "tool_choice", "tools", "functions"}
)

# --- the request ----------------------------------------------------------------------------------------------------


def render_chat(call: ModelCall) -> WireRequest:
    """Raises InvalidRequest for what chat completions cannot express."""
    request = call.request
    assert isinstance(request, ChatRequest)
    if not request.messages:
        raise InvalidRequest("messages must hold at least 1 message")
    is_openai = is_openai_itself(call.base_url)
    body = _parameters(call, is_openai=is_openai)
    body["model"] = call.model_id
    body["messages"] = _messages(request.messages, is_openai=is_openai)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        _add_tool_choice(body, request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return json_request(
        call, "/chat/completions", body, accept="text/event-stream" if call.stream else "application/json"
    )


def _parameters(call: ModelCall, *, is_openai: bool) -> dict[str, Any]:
    body = checked_parameters(call, PARAMETERS, RESERVED, "chat completions")
    if "max_tokens" in body:
        if "max_completion_tokens" in body:
            raise InvalidRequest("max_tokens and max_completion_tokens are the same: give one")
        if is_openai:
            # OpenAI's reasoning models refuse max_tokens; most compatible servers know nothing else.
            body["max_completion_tokens"] = body.pop("max_tokens")
    if body.get("modalities", ["text"]) != ["text"]:
        raise InvalidRequest("modalities must be ['text']: audio answers cannot be had from this endpoint")
    if call.stream and body.get("logprobs"):
        raise InvalidRequest("logprobs cannot be streamed")
    return body


def _messages(messages: list[Message], *, is_openai: bool) -> list[dict[str, Any]]:
    rendered: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        match message.role:
            case Role.SYSTEM:
                rendered.append(_named(message, {"role": "system", "content": _texts(message.parts, where)}))
            case Role.USER:
                rendered.append(_named(message, {"role": "user", "content": _user_content(message.parts, where)}))
            case Role.ASSISTANT:
                rendered.append(_named(message, _assistant(message.parts, where, is_openai=is_openai)))
            case Role.TOOL:
                rendered += _tool_results(message.parts, where)
            case _:
                assert_never(message.role)
    return rendered


def _named(message: Message, body: dict[str, Any]) -> dict[str, Any]:
    if message.name is not None:
        body["name"] = message.name
    return body


def _texts(parts: list[Part], where: str) -> str | list[dict[str, Any]]:
    """One text as a string, several as a list, so that their bounds stay."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    texts: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, Text):
            raise _misplaced(part, where)
        texts.append({"type": "text", "text": part.text})
    return texts or ""


def _user_content(parts: list[Part], where: str) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            image: dict[str, Any] = {"url": image_url(part, where)}
            if part.detail is not None:
                image["detail"] = part.detail
            content.append({"type": "image_url", "image_url": image})
        else:
            raise _misplaced(part, where)
    return content or ""


def image_url(image: Image, where: str) -> str:
    """Its URL, or its data as a data URL. Raises InvalidRequest."""
    if image.url is not None:
        return image.url
    if image.data is None or image.media_type is None:
        raise InvalidRequest(f"{where}: an image needs a url, or data and a media_type")
    return f"data:{image.media_type};base64,{image.data}"


def _assistant(parts: list[Part], where: str, *, is_openai: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"role": "assistant", "content": None}
    texts: list[Part] = []
    calls: list[dict[str, Any]] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        match part:
            case Text():
                texts.append(part)
            case ToolCall():
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": part.id, "type": "function", "function": function})
            case Refusal():
                refusals.append(part.text)
            case Reasoning():
                thoughts.append(_thought(part, where, is_openai=is_openai))
            case _:
                raise _misplaced(part, where)
    if texts:
        body["content"] = _texts(texts, where)
    if refusals:
        body["refusal"] = "".join(refusals)
    if thoughts:
        body["reasoning_content"] = "".join(thoughts)
    if calls:
        body["tool_calls"] = calls
    if not (texts or refusals or calls):
        body["content"] = ""
    return body


def _thought(part: Reasoning, where: str, *, is_openai: bool) -> str:
    """DeepSeek and others want the thoughts before a tool call back: https://api-docs.deepseek.com/guides/thinking_mode

    A signature proves a thought to the provider that made it; no server of this protocol asks for one.
    """
    if part.redacted is not None:
        raise InvalidRequest(f"{where}: redacted reasoning can only go back to the provider it came from")
    if is_openai:
        raise InvalidRequest(f"{where}: OpenAI's chat completions take no reasoning")
    return part.text


def _tool_results(parts: list[Part], where: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, ToolResult):
            raise _misplaced(part, where)
        # The protocol has no mark for a failed tool: the text says it.
        content = f"Error: {part.content}" if part.is_error else part.content
        results.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": content})
    return results


def _misplaced(part: Part, where: str) -> InvalidRequest:
    kind = type(part).__struct_config__.tag
    return InvalidRequest(f"{where}: chat completions take no {kind} in a message of this role")


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _add_tool_choice(body: dict[str, Any], choice: ToolChoice) -> None:
    if "tools" not in body and (choice.name is not None or choice.mode is ToolMode.REQUIRED):
        raise InvalidRequest("tool_choice asks for a call, and tools are empty")
    if choice.name is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif "tools" in body:
        body["tool_choice"] = choice.mode.value
    if choice.parallel is not None and "tools" in body:
        body["parallel_tool_calls"] = choice.parallel


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind is not FormatKind.JSON_SCHEMA:
        return {"type": wanted.kind.value}
    if wanted.schema is None:
        raise InvalidRequest("response_format: a json_schema needs its schema")
    schema: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.description is not None:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


# --- the answer -----------------------------------------------------------------------------------------------------

FINISH_REASONS: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class Piece(Struct):
    """Of a content that is a list, as Mistral's reasoning models write it: https://docs.mistral.ai/capabilities/reasoning/"""

    type: str = "text"
    text: str | None = None
    thinking: str | list[dict[str, Any]] | None = None


class WireFunction(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None

    @property
    def arguments_text(self) -> str:
        if isinstance(self.arguments, dict):
            return msgspec.json.encode(self.arguments).decode()
        return self.arguments or ""


class WireToolCall(Struct):
    id: str | None = None
    index: int | None = None
    function: WireFunction | None = None


class WireMessage(Struct):
    """A whole message, or its delta. vLLM, Ollama and OpenRouter write `reasoning`, others `reasoning_content`."""

    content: str | list[Piece] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[WireToolCall] | None = None

    @property
    def thought(self) -> str | None:
        return self.reasoning_content or self.reasoning


class _WireChoice(Struct):
    message: WireMessage
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class _Completion(Struct):
    choices: list[_WireChoice]
    id: str | None = None
    model: str | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


def parse_chat(call: ModelCall, response: WireResponse) -> ModelResponse:
    body = read_json(response, _decode, _Completion)
    if not body.choices:
        raise invalid_answer("it has no choices", response)
    provider_request_id = response.headers.get("x-request-id")
    return ModelResponse(
        output=ChatOutput(choices=[_choice(choice, call, response) for choice in body.choices]),
        usage=read_chat_usage(body.usage, provider_request_id),
        response_model=body.model,
        response_id=body.id,
        provider_request_id=provider_request_id,
    )


def _choice(choice: _WireChoice, call: ModelCall, response: WireResponse) -> Choice:
    message = choice.message
    parts: list[Part] = []
    if message.thought:
        parts.append(Reasoning(message.thought))
    if isinstance(message.content, str):
        if message.content:
            parts.append(Text(message.content))
    elif message.content is not None:
        parts += pieces_of(message.content)
    if message.refusal:
        parts.append(Refusal(message.refusal))
    for index, wire in enumerate(message.tool_calls or ()):
        if wire.function is None or not wire.function.name:
            raise invalid_answer(f"choices[{choice.index}].message.tool_calls[{index}] names no function", response)
        call_id = wire.id or made_up_id(call, choice.index, index)
        parts.append(ToolCall(call_id, wire.function.name, wire.function.arguments_text))
    reason = finish_reason(choice.finish_reason, has_tool_calls=bool(message.tool_calls))
    return Choice(parts=parts, finish_reason=reason, index=choice.index, logprobs=choice.logprobs)


def pieces_of(content: list[Piece]) -> list[Text | Reasoning]:
    parts: list[Text | Reasoning] = []
    for piece in content:
        if isinstance(piece.thinking, list):
            thought = "".join(text for item in piece.thinking if isinstance(text := item.get("text"), str))
        else:
            thought = piece.thinking or ""
        if thought:
            parts.append(Reasoning(thought))
        if piece.text:
            parts.append(Text(piece.text))
    return parts


def finish_reason(reason: str | None, *, has_tool_calls: bool) -> FinishReason:
    """A reason that the protocol does not name counts as a stop. An answer that stopped to call tools says so: OpenAI
    itself writes "stop" where the caller forced the tool, other servers always.
    """
    known = FINISH_REASONS.get(reason or "", FinishReason.STOP)
    return FinishReason.TOOL_CALLS if has_tool_calls and known is FinishReason.STOP else known


def made_up_id(call: ModelCall, choice: int, index: int) -> str:
    """For a server that gives its tool calls none; unique over all calls, and within the 40 characters OpenAI takes."""
    return f"call_{call.request_id.replace('-', '')[:28]}_{choice}_{index}"

"""From our chat request to the body of Anthropic's messages.

https://platform.claude.com/docs/en/api/messages/create (2026-11-20)

ours                               | Anthropic's
-----------------------------------|-----------------------------------------------------------------------------
max_tokens                         | max_tokens, which is required: 4096 where not given, beyond the budget to think
temperature (up to 1), top_p       | the same
top_k, thinking                    | the same (Anthropic's own names)
stop                               | stop_sequences
reasoning_effort low ... max       | output_config.effort; none: thinking disabled
user, safety_identifier            | metadata.user_id
service_tier auto, default         | auto, standard_only
response_format json_schema        | output_config.format
leading SYSTEM messages            | system; later ones keep their place with the role "system"
cache_ttl of a part                | cache_control
n above 1, seed, logprobs, top_logprobs, logit_bias, presence_penalty, frequency_penalty, modalities beyond text,
response_format json_object, a message's name, an image's detail | refused

Structured output uses the native `output_config.format`, not a forced tool: the answer streams as text, tools and
thinking stay usable beside it, and the schema is enforced
(https://platform.claude.com/docs/en/build-with-claude/structured-outputs, 2026-11-20). Models that are older than it
answer with an error, which is better than an answer that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from app.providers.adapter import ModelCall
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
from app.providers.operations import ChatRequest
from app.providers.wire import Parameters, image_data, object_from_text, refused

DEFAULT_MAX_TOKENS: Final = 4096
"""The most that every model of the protocol accepts."""

PROTOCOL: Final = "Anthropic's messages"
_SAME: Final = {"top_p": "top_p", "top_k": "top_k"}
_EFFORTS: Final = {name: name for name in ("none", "low", "medium", "high", "xhigh", "max")}
_SERVICE_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_REFUSED: Final[dict[str, Any]] = {
    "n": 1,
    "seed": None,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "modalities": ["text"],
}
_WIRE_ROLE: Final = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant", Role.TOOL: "user"}
_MODES: Final = {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "any"}


def render_chat(call: ModelCall, request: ChatRequest) -> dict[str, Any]:
    parameters = Parameters(call, PROTOCOL)
    body: dict[str, Any] = {"model": call.model_id}
    system, body["messages"] = _messages(request.messages)
    if system:
        body["system"] = system
    _render_parameters(parameters, body)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, has_tools=bool(request.tools))
    if request.response_format is not None:
        _render_format(request.response_format, body)
    if call.stream:
        body["stream"] = True
    return {**parameters.rest(), **body}


def _render_parameters(parameters: Parameters, body: dict[str, Any]) -> None:
    parameters.refuse_all(_REFUSED)
    parameters.copy(_SAME, body)
    if (temperature := parameters.take_number("temperature", 1)) is not None:
        body["temperature"] = temperature
    if (stop := parameters.take_texts("stop")) is not None:
        body["stop_sequences"] = stop
    # OpenAI's newer name for the same, and its older one.
    user, identifier = parameters.take("user"), parameters.take("safety_identifier")
    if user is not None and identifier is not None and user != identifier:
        raise refused("parameters.safety_identifier", "is another than user, and there can be one of them only")
    if (user_id := user if identifier is None else identifier) is not None:
        body["metadata"] = {"user_id": user_id}
    if (tier := parameters.take_choice("service_tier", _SERVICE_TIERS)) is not None:
        body["service_tier"] = tier
    thinking = parameters.take("thinking")
    effort = parameters.take_choice("reasoning_effort", _EFFORTS)
    if effort == "none":
        if thinking is not None:
            raise refused("parameters.thinking", "contradicts a reasoning_effort of none")
        thinking = {"type": "disabled"}
    elif effort is not None:
        body["output_config"] = {"effort": effort}
    if thinking is not None:
        if not isinstance(thinking, dict):
            raise refused("parameters.thinking", f"must be an object, not {thinking!r:.80}")
        body["thinking"] = thinking
    max_tokens = parameters.take_integer("max_tokens")
    if max_tokens is None:
        budget = thinking.get("budget_tokens") if thinking else None
        max_tokens = DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)
    body["max_tokens"] = max_tokens


def _render_format(wanted: ResponseFormat, body: dict[str, Any]) -> None:
    if wanted.kind is FormatKind.TEXT:
        return
    if wanted.kind is FormatKind.JSON_OBJECT or wanted.schema is None:
        raise refused("response_format", f"must have a json_schema for {PROTOCOL}, which knows no JSON without one")
    schema = dict(wanted.schema)
    if wanted.description is not None:
        schema.setdefault("description", wanted.description)
    output_config = body.setdefault("output_config", {})
    output_config["format"] = {"type": "json_schema", "schema": schema}


def _tool(tool: Tool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters or {"type": "object"}}
    if tool.description is not None:
        rendered["description"] = tool.description
    if tool.strict is not None:
        rendered["strict"] = tool.strict
    return _cached(rendered, tool.cache_ttl)


def _tool_choice(choice: ToolChoice, *, has_tools: bool) -> dict[str, Any]:
    if not has_tools:
        raise refused("tool_choice", "needs tools to choose from")
    rendered: dict[str, Any] = (
        {"type": "tool", "name": choice.name} if choice.name is not None else {"type": _MODES[choice.mode]}
    )
    if choice.parallel is not None and rendered["type"] != "none":
        rendered["disable_parallel_tool_use"] = not choice.parallel
    return rendered


def _messages(messages: list[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system blocks, and the turns: messages of one role in a row are one turn, tool results before all else."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        if message.name is not None:
            raise refused(f"{at}.name", f"cannot be expressed in {PROTOCOL}")
        blocks = list(_blocks(at, message))
        if message.role is Role.SYSTEM and not turns:
            system += blocks
            continue
        role = _WIRE_ROLE[message.role]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise refused("messages", "must hold a message that is not the system's")
    return system, turns


def _blocks(at: str, message: Message) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(message.parts):
        if isinstance(part, Text) and not part.text and len(message.parts) > 1:
            # The protocol refuses empty texts; beside other parts they say nothing.
            continue
        yield _block(f"{at}.parts[{number}]", message.role, part)


def _block(at: str, role: Role, part: Part) -> dict[str, Any]:
    match role, part:
        case ((Role.SYSTEM | Role.USER | Role.ASSISTANT), Text()):
            return _cached({"type": "text", "text": part.text}, part.cache_ttl)
        case Role.USER, Image():
            return _cached({"type": "image", "source": _image_source(at, part)}, part.cache_ttl)
        case Role.ASSISTANT, ToolCall():
            arguments = object_from_text(part.arguments)
            if arguments is None:
                raise refused(f"{at}.arguments", f"must be a JSON object for {PROTOCOL}")
            block: dict[str, Any] = {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
            return _cached(block, part.cache_ttl)
        case Role.ASSISTANT, Reasoning():
            return _thinking(at, part)
        case Role.ASSISTANT, Refusal():
            return {"type": "text", "text": part.text}
        case ((Role.TOOL | Role.USER), ToolResult()):
            block = {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": part.content}
            if part.is_error:
                block["is_error"] = True
            return _cached(block, part.cache_ttl)
        case _:
            raise refused(at, f"is a {type(part).__name__} part, which a message of the {role} cannot hold")


def _thinking(at: str, part: Reasoning) -> dict[str, Any]:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature is None:
        raise refused(f"{at}.signature", f"is required for reasoning in {PROTOCOL}")
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _image_source(at: str, image: Image) -> dict[str, Any]:
    if image.detail not in (None, "auto"):
        raise refused(f"{at}.detail", f"cannot be expressed in {PROTOCOL}")
    if (inline := image_data(image)) is not None:
        return {"type": "base64", "media_type": inline[0], "data": inline[1]}
    if image.url is None:
        raise refused(at, "is an image with neither a url nor data")
    return {"type": "url", "url": image.url}


def _cached(block: dict[str, Any], ttl: str | None) -> dict[str, Any]:
    if ttl is not None:
        block["cache_control"] = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    return block

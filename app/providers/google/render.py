"""From our chat request to the body of Google's generateContent.

https://ai.google.dev/api/generate-content, .../gemini-api/docs/thinking, .../gemini-api/docs/thought-signatures and
.../gemini-api/docs/function-calling (2026-11-20)

ours                                   | Google's, in generationConfig where nothing else is said
---------------------------------------|------------------------------------------------------------------------------
max_tokens, n, stop                    | maxOutputTokens, candidateCount, stopSequences
temperature, top_p, top_k, seed, presence_penalty, frequency_penalty | the same, in camel case
reasoning_effort                       | thinkingConfig.thinkingLevel; of the models 2.5, thinkingBudget
thinking                               | thinkingConfig: a budget, -1 for "adaptive", 0 for "disabled"; with thoughts
safety_settings, cached_content        | safetySettings, cachedContent beside generationConfig (Google's own)
response_format                        | responseMimeType, responseJsonSchema
leading SYSTEM messages                | systemInstruction
tool_choice auto, none, required, name | toolConfig.functionCallingConfig AUTO, NONE, ANY, ANY with one allowed name
a strict tool                          | the mode VALIDATED in place of AUTO
a signature of reasoning               | thoughtSignature of the part that follows it
later SYSTEM messages, images by a URL that is not Google's, tool_choice.parallel false, a message's name, an image's
detail, logprobs, top_logprobs, logit_bias, user, safety_identifier, service_tier, modalities beyond text | refused
cache_ttl                              | nothing: the models cache by themselves
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from app.providers.adapter import ModelCall
from app.providers.google.thinking import NO_SIGNATURE, needs_signatures, thinking_config
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
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

PROTOCOL: Final = "Google's generateContent"
_GENERATION: Final = {
    "max_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_BESIDE: Final = {"safety_settings": "safetySettings", "cached_content": "cachedContent"}
_REFUSED: Final[dict[str, Any]] = {
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "user": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "modalities": ["text"],
}
_MODES: Final = {ToolMode.AUTO: "AUTO", ToolMode.NONE: "NONE", ToolMode.REQUIRED: "ANY"}
_FILE_URI: Final = re.compile(r"gs://.+|https://generativelanguage\.googleapis\.com/.+/files/.+")


def render_chat(call: ModelCall, request: ChatRequest) -> dict[str, Any]:
    parameters = Parameters(call, PROTOCOL)
    parameters.refuse_all(_REFUSED)
    body: dict[str, Any] = {}
    system, body["contents"] = _Contents(call.model_id).of(request.messages)
    if system:
        body["systemInstruction"] = {"parts": system}
    config: dict[str, Any] = {}
    parameters.copy(_GENERATION, config)
    parameters.copy(_BESIDE, body)
    if (stop := parameters.take_texts("stop")) is not None:
        config["stopSequences"] = stop
    if (thinking := thinking_config(call.model_id, parameters)) is not None:
        config["thinkingConfig"] = thinking
    if request.response_format is not None:
        _render_format(request.response_format, config)
    if config:
        body["generationConfig"] = config
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
    if (calling := _calling_config(request.tools, request.tool_choice)) is not None:
        body["toolConfig"] = {"functionCallingConfig": calling}
    return {**parameters.rest(), **body}


def _render_format(wanted: ResponseFormat, config: dict[str, Any]) -> None:
    if wanted.kind is FormatKind.TEXT:
        return
    config["responseMimeType"] = "application/json"
    if wanted.kind is FormatKind.JSON_SCHEMA:
        schema = dict(wanted.schema or {})
        if wanted.description is not None:
            schema.setdefault("description", wanted.description)
        config["responseJsonSchema"] = schema


def _tool(tool: Tool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        rendered["description"] = tool.description
    if tool.parameters is not None:
        rendered["parametersJsonSchema"] = tool.parameters
    return rendered


def _calling_config(tools: list[Tool], choice: ToolChoice | None) -> dict[str, Any] | None:
    if choice is not None and not tools:
        raise refused("tool_choice", "needs tools to choose from")
    if choice is not None and choice.parallel is False:
        raise refused("tool_choice.parallel", f"cannot be false in {PROTOCOL}")
    if choice is not None and choice.name is not None:
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    mode = None if choice is None else _MODES[choice.mode]
    if mode in (None, "AUTO") and any(tool.strict for tool in tools):
        mode = "VALIDATED"
    return None if mode is None else {"mode": mode}


class _Contents:
    """Turns messages into contents; a function's response needs the name that only its call has."""

    def __init__(self, model_id: str) -> None:
        self._needs_signatures = needs_signatures(model_id)
        self._names: dict[str, str] = {}

    def of(self, messages: list[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The parts of the system, and the turns.

        Messages of one role in a row are one turn; functions' responses have one of their own, which must answer all
        the calls of the turn before.
        """
        system: list[dict[str, Any]] = []
        turns: list[dict[str, Any]] = []
        last: Role | None = None
        for number, message in enumerate(messages):
            at = f"messages[{number}]"
            if message.name is not None:
                raise refused(f"{at}.name", f"cannot be expressed in {PROTOCOL}")
            if message.role is Role.SYSTEM:
                if turns:
                    raise refused(f"{at}.role", f"can be the system's only before all other messages in {PROTOCOL}")
                system += self._parts(at, message)
                continue
            parts = list(self._parts(at, message))
            if message.role is last:
                turns[-1]["parts"] += parts
            else:
                turns.append({"role": "model" if message.role is Role.ASSISTANT else "user", "parts": parts})
            last = message.role
        if not turns:
            raise refused("messages", "must hold a message that is not the system's")
        return system, turns

    def _parts(self, at: str, message: Message) -> Iterator[dict[str, Any]]:
        signature: str | None = None
        is_first_call = True
        for number, part in enumerate(message.parts):
            place = f"{at}.parts[{number}]"
            if isinstance(part, Reasoning) and message.role is Role.ASSISTANT:
                if part.redacted is not None:
                    raise refused(f"{place}.redacted", f"cannot be expressed in {PROTOCOL}")
                if part.text:
                    yield {"text": part.text, "thought": True}
                signature = part.signature or signature
                continue
            rendered = self._part(place, message.role, part)
            if isinstance(part, ToolCall):
                if signature is None and is_first_call and self._needs_signatures:
                    signature = NO_SIGNATURE
                is_first_call = False
            if signature is not None:
                rendered["thoughtSignature"] = signature
                signature = None
            yield rendered
        if signature is not None:
            yield {"text": "", "thoughtSignature": signature}

    def _part(self, at: str, role: Role, part: Any) -> dict[str, Any]:
        match role, part:
            case ((Role.SYSTEM | Role.USER | Role.ASSISTANT), Text()):
                return {"text": part.text}
            case Role.ASSISTANT, Refusal():
                return {"text": part.text}
            case Role.USER, Image():
                return _image(at, part)
            case Role.ASSISTANT, ToolCall():
                arguments = object_from_text(part.arguments)
                if arguments is None:
                    raise refused(f"{at}.arguments", f"must be a JSON object for {PROTOCOL}")
                self._names[part.id] = part.name
                return {"functionCall": {"id": part.id, "name": part.name, "args": arguments}}
            case ((Role.TOOL | Role.USER), ToolResult()):
                name = self._names.get(part.tool_call_id)
                if name is None:
                    raise refused(f"{at}.tool_call_id", f"answers no earlier tool call: {part.tool_call_id!r:.80}")
                response = {"error" if part.is_error else "output": part.content}
                return {"functionResponse": {"id": part.tool_call_id, "name": name, "response": response}}
            case _:
                raise refused(at, f"is a {type(part).__name__} part, which a message of the {role} cannot hold")


def _image(at: str, image: Image) -> dict[str, Any]:
    if image.detail not in (None, "auto"):
        raise refused(f"{at}.detail", f"cannot be expressed in {PROTOCOL}")
    if (inline := image_data(image)) is not None:
        return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}
    if image.url is None:
        raise refused(at, "is an image with neither a url nor data")
    if not _FILE_URI.fullmatch(image.url):
        raise refused(f"{at}.url", f"must be a data URL or a file of Google's for {PROTOCOL}, not {image.url!r:.80}")
    file: dict[str, Any] = {"fileUri": image.url}
    if image.media_type is not None:
        file["mimeType"] = image.media_type
    return {"fileData": file}

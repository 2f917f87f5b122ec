"""The gateway's /v1/responses: from the body of OpenAI's SDK to our request, and from our answer to its own.

Wire format: https://platform.openai.com/docs/api-reference/responses (checked 2026-11-20). Nothing of an answer is kept
for a later call, so what leans on OpenAI's store is refused: `store: true`, `previous_response_id`, `conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import TollgateError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall, EncodedError, StreamWriter
from app.providers.messages import Message, ResponseFormat, Role, Text, Tool, ToolChoice, ToolMode
from app.providers.openai.client_body import (
    format_of,
    in_field,
    parameters_of,
    take_flag,
    take_metadata,
    take_text,
)
from app.providers.openai.errors import encode_error
from app.providers.openai.responses_answer import ResponseFrame, output_items
from app.providers.openai.responses_input import messages_of
from app.providers.openai.responses_writer import ResponsesStreamWriter
from app.providers.operations import ChatOutput, ChatRequest

_encode: Final = msgspec.json.Encoder().encode
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "background": (False,),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "n": (1,),
    "previous_response_id": (),
    "prompt": (),
    "store": (False,),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
"""What the gateway does not do, with the values that ask for nothing."""


class _FunctionTool(Struct):
    """Built-in tools have other fields, and are refused by their type."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OpenAIResponsesDialect:
    """Parameters that are not named here go to the model as they are, whose own rules judge them."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        model = take_text(fields, "model")
        for name, neutral in _NEUTRAL.items():
            value = fields.pop(name, None)
            if value is not None and value not in neutral:
                raise ValidationError(name, value, "left out: the gateway keeps and runs nothing beside the model")
        _take_include(fields.pop("include", None))
        echo = {name: fields.get(name) for name in ResponseFrame.ECHOED}
        stream = take_flag(fields, "stream")
        _take_stream_options(fields.pop("stream_options", None))
        metadata = take_metadata(fields)
        messages = messages_of(fields.pop("input", None))
        instructions = fields.pop("instructions", None)
        if instructions is not None:
            if not isinstance(instructions, str):
                raise ValidationError("instructions", instructions, "a text")
            messages.insert(0, Message(Role.SYSTEM, [Text(instructions)]))
        if not messages:
            raise ValidationError("input", [], "at least 1 item")
        parameters: dict[str, Any] = {}
        request = ChatRequest(
            messages=messages,
            tools=_tools(fields.pop("tools", None)),
            tool_choice=_tool_choice(fields.pop("tool_choice", None), fields.pop("parallel_tool_calls", None)),
            response_format=_take_text(fields.pop("text", None), parameters),
        )
        _take_reasoning(fields.pop("reasoning", None), parameters)
        parameters["max_tokens"] = fields.pop("max_output_tokens", None)
        return ClientCall(
            model,
            request,
            parameters_of({**fields, **parameters}),
            stream,
            {"echo": echo, "metadata": metadata},
            metadata,
        )

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, ChatOutput)
        frame = ResponseFrame(call, answered)
        choice = output.choices[0]
        items = output_items(choice.parts, answered.request_id)
        return _encode(frame.ended(items, choice.finish_reason, usage)), "application/json"

    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter:
        return ResponsesStreamWriter(ResponseFrame(call, answered), answered.request_id)

    def encode_error(self, error: TollgateError) -> EncodedError:
        return encode_error(error)


def _take_include(value: Any) -> None:
    """Encrypted reasoning is always included where there is some."""
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        if item != "reasoning.encrypted_content":
            raise ValidationError("include", item, "reasoning.encrypted_content")


def _take_stream_options(value: Any) -> None:
    if value not in (None, {}, {"include_obfuscation": False}):
        raise ValidationError("stream_options", value, "left out: the gateway does not obfuscate")


def _take_text(value: Any, parameters: dict[str, Any]) -> ResponseFormat | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValidationError("text", value, "an object")
    rest = dict(value)
    wanted = rest.pop("format", None)
    parameters["verbosity"] = rest.pop("verbosity", None)
    if rest:
        name = next(iter(rest))
        raise ValidationError(f"text.{name}", rest[name], "left out: the gateway does not know it")
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise ValidationError("text.format", wanted, "an object")
    schema = {name: item for name, item in wanted.items() if name != "type"}
    return format_of(wanted.get("type"), schema, "text.format", "text.format")


def _take_reasoning(value: Any, parameters: dict[str, Any]) -> None:
    """Thoughts are shown as the model gives them, so a summary of them can be asked for only as "auto"."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise ValidationError("reasoning", value, "an object")
    neutral: Mapping[str, tuple[Any, ...]] = {
        "summary": (None, "auto"),
        "generate_summary": (None, "auto"),
        "context": (None, "auto"),
        "mode": (None, "standard"),
    }
    for name, option in value.items():
        if name == "effort":
            parameters["reasoning_effort"] = option
        elif name not in neutral or option not in neutral[name]:
            raise ValidationError(f"reasoning.{name}", option, "left out, or what the gateway does anyway")


def _tools(value: Any) -> list[Tool]:
    if value is None:
        return []
    tools = []
    for index, tool in enumerate(in_field("tools", value, list[_FunctionTool])):
        if tool.type != "function" or tool.name is None:
            raise ValidationError(
                f"tools[{index}].type", tool.type, "function, with its name: no other tool is run here"
            )
        tools.append(Tool(tool.name, tool.description, tool.parameters, tool.strict))
    return tools


def _tool_choice(value: Any, parallel: Any) -> ToolChoice | None:
    if parallel is not None and not isinstance(parallel, bool):
        raise ValidationError("parallel_tool_calls", parallel, "true or false")
    if value is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(value, str) and value in {mode.value for mode in ToolMode}:
        return ToolChoice(ToolMode(value), parallel=parallel)
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("name"), str):
        return ToolChoice(ToolMode.REQUIRED, value["name"], parallel)
    raise ValidationError("tool_choice", value, "none, auto, required or a function by its name")

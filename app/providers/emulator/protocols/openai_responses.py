"""OpenAI responses: https://platform.openai.com/docs/api-reference/responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.protocols.openai_messages import forced_tool
from app.providers.emulator.protocols.openai_response_items import failure_event, response_events, response_object
from app.providers.emulator.protocols.reading import (
    IMAGE_BYTES,
    object_of,
    objects_of,
    read_object,
    size_of,
    whole_number,
)
from app.providers.emulator.wire import (
    EVENT_STREAM_TYPE,
    Answer,
    Body,
    GenerationCall,
    Head,
    Operation,
    Refusal,
    Tool,
    bad_request,
)


@dataclass(slots=True, kw_only=True)
class ResponsesCall(GenerationCall):
    request: dict[str, Any]
    """Much of it is said again in the response."""


class Responses(Operation[ResponsesCall]):
    name = "responses"

    def read(self, head: Head, body: bytes) -> ResponsesCall:
        request = read_object(body)
        model = request.get("model")
        if not isinstance(model, str) or not model:
            raise bad_request("Missing required parameter: 'model'.", "model")
        size, last_text = _measure(request.get("input"))
        instructions = request.get("instructions")
        tools = _tools(request.get("tools"))
        summary = object_of(request.get("reasoning")).get("summary")
        return ResponsesCall(
            model=model,
            prompt_bytes=size + (size_of(instructions) if isinstance(instructions, str) else 0),
            last_text=last_text,
            max_output_tokens=whole_number(request, "max_output_tokens", 0) or None,
            stream=request.get("stream") is True,
            metadata=object_of(request.get("metadata")),
            tools=tools,
            must_call=forced_tool(request.get("tool_choice"), tools),
            json_schema=_schema(object_of(object_of(request.get("text")).get("format"))),
            shows_reasoning=summary in ("auto", "concise", "detailed"),
            request=request,
        )

    def write(self, call: ResponsesCall, answer: Answer) -> Body:
        if call.stream:
            return Body(response_events(call.model, call.request, answer), EVENT_STREAM_TYPE, streamed=True)
        return Body([orjson.dumps(response_object(call.model, call.request, answer))])

    def write_broken_stream(self, call: ResponsesCall, refusal: Refusal, request_id: str) -> bytes:
        return failure_event(refusal)


def _measure(given: object) -> tuple[int, str]:
    """Raises Refused."""
    if isinstance(given, str) and given:
        return size_of(given), given
    if not isinstance(given, list) or not given:
        raise bad_request("Invalid 'input': expected a text or a non-empty array.", "input")
    size, text = 0, ""
    called: set[str] = set()
    for position, item in enumerate(given):
        kind = object_of(item).get("type", "message")
        if kind == "message":
            text, extra = _content(item.get("content") if isinstance(item, dict) else None, position)
            size += extra + size_of(text)
        elif kind == "function_call":
            called.add(str(item.get("call_id")))
            size += size_of(str(item.get("arguments"))) + len(str(item.get("name")))
        elif kind == "function_call_output":
            if item.get("call_id") not in called:
                message = f"No tool call found for function call output with call_id {item.get('call_id')}."
                raise bad_request(message, "input")
            called.discard(item["call_id"])
            output = item.get("output")
            text = output if isinstance(output, str) else _content(output, position)[0]
            size += size_of(text)
        elif kind not in ("reasoning", "item_reference"):
            raise bad_request(f"Invalid value for 'input[{position}].type': {kind!r:.100}.", f"input[{position}].type")
    if called:
        raise bad_request(f"No tool output found for function call {min(called)}.", "input")
    return size, text


def _content(content: object, position: int) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    texts, size = [], 0
    for part in objects_of(content):
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text"):
            texts.append(str(part.get("text", "")))
        elif kind in ("input_image", "input_file", "input_audio", "refusal"):
            size += IMAGE_BYTES
        else:
            place = f"input[{position}].content"
            raise bad_request(f"Invalid value for the type of a part of '{place}': {kind!r:.100}.", place)
    return "".join(texts), size


def _tools(value: object) -> list[Tool]:
    tools = []
    for number, tool in enumerate(objects_of(value)):
        if tool.get("type") == "function":
            if not isinstance(tool.get("name"), str):
                raise bad_request(f"Missing required parameter: 'tools[{number}].name'.", f"tools[{number}].name")
            tools.append(Tool(tool["name"], object_of(tool.get("parameters"))))
    return tools


def _schema(text_format: Any) -> dict[str, Any] | None:
    if text_format.get("type") == "json_object":
        return {}
    if text_format.get("type") == "json_schema":
        schema = text_format.get("schema")
        if not isinstance(schema, dict) or not text_format.get("name"):
            raise bad_request("Missing required parameter: 'text.format.name' or 'text.format.schema'.", "text.format")
        return schema
    return None

"""Anthropic messages and the count of their tokens: https://docs.anthropic.com/en/api/messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from app.providers.emulator.composition import text_tokens
from app.providers.emulator.protocols.anthropic_content import blocks, events, message, signature
from app.providers.emulator.protocols.anthropic_errors import write_error
from app.providers.emulator.protocols.reading import (
    IMAGE_BYTES,
    object_of,
    objects_of,
    read_object,
    size_of,
    whole_number,
)
from app.providers.emulator.wire import (
    ANY_TOOL,
    EVENT_STREAM_TYPE,
    Answer,
    Body,
    Call,
    GenerationCall,
    Head,
    Operation,
    Refusal,
    Tool,
    bad_request,
)

VERSION_HEADER = b"anthropic-version"
_COUNTED = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "metadata"}
)
_FIELDS = _COUNTED | {
    "max_tokens",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "mcp_servers",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "user_profile_id",
    "workspace_id",
}
_FREE_BLOCKS = frozenset({"image", "document", "search_result", "thinking", "redacted_thinking"})


class Messages(Operation[GenerationCall]):
    name = "messages"

    def read(self, head: Head, body: bytes) -> GenerationCall:
        request = _request(head, body, _FIELDS)
        size, last_text = _measure(request)
        if "max_tokens" not in request:
            raise bad_request("max_tokens: Field required")
        tools = _tools(request.get("tools"))
        thinking = object_of(request.get("thinking"))
        budget = thinking.get("budget_tokens")
        limit = whole_number(request, "max_tokens", 1)
        if thinking.get("type") == "enabled" and (not isinstance(budget, int) or not 1024 <= budget < limit):
            raise bad_request("thinking.enabled.budget_tokens: must be at least 1024 and less than `max_tokens`")
        return GenerationCall(
            model=request["model"],
            prompt_bytes=size,
            last_text=last_text,
            max_output_tokens=limit,
            stream=request.get("stream") is True,
            metadata=object_of(request.get("metadata")),
            tools=tools,
            must_call=_forced(object_of(request.get("tool_choice")), tools),
            json_schema=_schema(request),
            stop=[mark for mark in request.get("stop_sequences") or () if isinstance(mark, str)],
            shows_reasoning=thinking.get("type") in ("enabled", "adaptive"),
        )

    def write(self, call: GenerationCall, answer: Answer) -> Body:
        if call.stream:
            return Body(events(call.model, answer), EVENT_STREAM_TYPE, streamed=True)
        return Body([orjson.dumps(message(call.model, answer, blocks(answer)))])

    def write_broken_stream(self, call: GenerationCall, refusal: Refusal, request_id: str) -> bytes:
        return b"event: error\ndata: " + write_error(refusal, request_id) + b"\n\n"


@dataclass(slots=True, kw_only=True)
class CountCall(Call):
    pass


class CountTokens(Operation[CountCall]):
    """Neither billed nor counted against the limits of messages."""

    name = "count_tokens"
    limited: ClassVar[bool] = False

    def read(self, head: Head, body: bytes) -> CountCall:
        request = _request(head, body, _COUNTED)
        size, last_text = _measure(request)
        return CountCall(model=request["model"], prompt_bytes=size, last_text=last_text)

    def write(self, call: CountCall, answer: Answer) -> Body:
        return Body([orjson.dumps({"input_tokens": text_tokens(call.prompt_bytes)})])


def _request(head: Head, body: bytes, fields: frozenset[str]) -> dict[str, Any]:
    if VERSION_HEADER not in head.headers:
        raise bad_request("anthropic-version: header is required")
    request = read_object(body)
    unknown = next((name for name in request if name not in fields), None)
    if unknown is not None:
        raise bad_request(f"{unknown}: Extra inputs are not permitted")
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise bad_request("model: Field required")
    temperature = request.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        raise bad_request("temperature: range: 0..1")
    return request


def _measure(request: Mapping[str, Any]) -> tuple[int, str]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages: at least one message is required")
    size, text = _content(request.get("system") or "", "system")[:2]
    text = ""
    size += sum(len(orjson.dumps(tool)) for tool in objects_of(request.get("tools")))
    unanswered: set[str] = set()
    for position, item in enumerate(messages):
        role = object_of(item).get("role")
        if role not in ("user", "assistant"):
            raise bad_request(f"messages.{position}.role: Input should be 'user' or 'assistant'")
        content = item.get("content")
        if not content:
            raise bad_request(f"messages.{position}: all messages must have non-empty content")
        extra, text, answered = _content(content, f"messages.{position}.content")
        size += extra
        if missing := unanswered - answered:
            raise bad_request(_without_result(position - 1, missing))
        if strange := answered - unanswered:
            place = f"messages.{position}.content.0"
            reason = "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            raise bad_request(
                f"{place}: unexpected `tool_use_id` found in `tool_result` blocks: {min(strange)}. {reason}"
            )
        unanswered = {str(part["id"]) for part in objects_of(content) if part.get("type") == "tool_use"}
    if unanswered:
        raise bad_request(_without_result(len(messages) - 1, unanswered))
    return size, text


def _without_result(position: int, ids: set[str]) -> str:
    return (
        f"messages.{position}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(ids))}."
    )


def _content(content: object, place: str) -> tuple[int, str, set[str]]:
    """Bytes, text, and the ids of tool calls that results answer. Raises Refused."""
    if isinstance(content, str):
        return size_of(content), content, set()
    size, texts, answered = 0, [], set()
    for number, part in enumerate(objects_of(content)):
        kind = part.get("type")
        if kind == "text":
            if not part.get("text"):
                raise bad_request(f"{place}.{number}: text content blocks must be non-empty")
            texts.append(str(part["text"]))
        elif kind == "tool_use":
            if not isinstance(part.get("input"), dict) or not isinstance(part.get("id"), str):
                raise bad_request(f"{place}.{number}.tool_use.input: Input should be a valid dictionary")
            size += len(orjson.dumps(part["input"])) + len(str(part.get("name")))
        elif kind == "tool_result":
            extra, text, _ = _content(part.get("content") or "", f"{place}.{number}.content")
            size += extra
            answered.add(str(part.get("tool_use_id")))
            texts.append(text)
        elif kind in _FREE_BLOCKS:
            _check_block(part, f"{place}.{number}")
            size += IMAGE_BYTES if kind in ("image", "document") else 0
        else:
            raise bad_request(f"{place}.{number}: Input tag {kind!r:.100} found using 'type' does not match any tag")
    return size + sum(map(size_of, texts)), "".join(texts), answered


def _check_block(part: Mapping[str, Any], place: str) -> None:
    if part["type"] == "thinking" and part.get("signature") != signature(str(part.get("thinking"))):
        raise bad_request(f"{place}: Invalid `signature` in `thinking` block")
    if part["type"] == "image":
        source = object_of(part.get("source"))
        inline = source.get("type") == "base64" and source.get("data") and source.get("media_type")
        if not inline and not (source.get("type") in ("url", "file") and (source.get("url") or source.get("file_id"))):
            raise bad_request(f"{place}.image.source: Field required")


def _tools(value: object) -> list[Tool]:
    tools = []
    for number, tool in enumerate(objects_of(value)):
        if tool.get("type") in (None, "custom"):
            if not isinstance(tool.get("name"), str) or not isinstance(tool.get("input_schema"), dict):
                raise bad_request(f"tools.{number}.custom.input_schema: Field required")
            tools.append(Tool(tool["name"], tool["input_schema"]))
    return tools


def _forced(choice: Mapping[str, Any], tools: list[Tool]) -> str | None:
    kind = choice.get("type")
    if kind == "any":
        return ANY_TOOL
    if kind == "tool":
        if choice.get("name") not in {tool.name for tool in tools}:
            raise bad_request(f"tool_choice.tool.name: Tool '{choice.get('name')}' not found in provided tools")
        return str(choice["name"])
    if kind not in (None, "auto", "none"):
        raise bad_request(f"tool_choice: Input tag {kind!r:.100} does not match any of the expected tags")
    return None


def _schema(request: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = object_of(object_of(request.get("output_config")).get("format")) or object_of(request.get("output_format"))
    if not asked:
        return None
    if asked.get("type") != "json_schema" or not isinstance(asked.get("schema"), dict):
        raise bad_request("output_config.format.schema: Field required")
    schema: dict[str, Any] = asked["schema"]
    return schema

"""Reads what chat completions carry: messages, tools and stop sequences."""

from __future__ import annotations

from typing import Any

from app.providers.emulator.protocols.reading import IMAGE_BYTES, object_of, objects_of, size_of
from app.providers.emulator.wire import ANY_TOOL, Tool, bad_request


def measure(messages: object) -> tuple[int, str]:
    """The bytes of the prompt and the text of its last message. Raises Refused."""
    if not isinstance(messages, list) or not messages:
        raise bad_request("Invalid 'messages': expected a non-empty array.", "messages")
    size, text = 0, ""
    unanswered: set[str] = set()
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            param = f"messages[{position}].role"
            raise bad_request(f"Invalid 'messages[{position}]': expected an object with a role.", param)
        content = message.get("content")
        text = content if isinstance(content, str) else ""
        if isinstance(content, list):
            text, extra = _parts(content, position)
            size += extra
        if message["role"] == "tool" or unanswered or "tool_calls" in message:
            size += _follow(message, unanswered, position)
        size += len(text) if text.isascii() else len(text.encode())
    if unanswered:
        raise _unanswered(unanswered, len(messages))
    return size, text


def _parts(parts: list[Any], position: int) -> tuple[str, int]:
    texts, size = [], 0
    for number, part in enumerate(parts):
        place = f"messages[{position}].content[{number}]"
        kind = object_of(part).get("type")
        if kind == "text":
            texts.append(str(part.get("text", "")))
        elif kind == "image_url":
            url = object_of(part.get("image_url")).get("url")
            if not isinstance(url, str) or not url.startswith(("data:image/", "http://", "https://")):
                raise bad_request(f"Invalid '{place}.image_url': expected a URL.", f"{place}.image_url")
            size += IMAGE_BYTES
        elif kind in ("input_audio", "file", "refusal"):
            size += IMAGE_BYTES
        else:
            raise bad_request(f"Invalid value for '{place}.type': {kind!r:.100}.", f"{place}.type")
    return "".join(texts), size


def _follow(message: dict[str, Any], unanswered: set[str], position: int) -> int:
    """Every tool call is answered by the tool messages right after it, and these answer nothing else."""
    if message["role"] == "tool":
        id = message.get("tool_call_id")
        if id not in unanswered:
            reason = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            raise bad_request(f"Invalid parameter: {reason}", f"messages.[{position}].role")
        unanswered.discard(str(id))
        return 0
    if unanswered:
        raise _unanswered(unanswered, position)
    size = 0
    for call in objects_of(message.get("tool_calls")):
        function = object_of(call.get("function"))
        if not isinstance(call.get("id"), str) or not isinstance(function.get("arguments"), str):
            place = f"messages[{position}].tool_calls"
            raise bad_request(f"Invalid '{place}': expected calls with an id and arguments as a string.", place)
        unanswered.add(call["id"])
        size += size_of(function["arguments"]) + len(str(function.get("name")))
    return size


def _unanswered(ids: set[str], position: int) -> Exception:
    return bad_request(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(ids))}",
        f"messages.[{position}].role",
    )


def tools_of(value: object) -> list[Tool]:
    """Raises Refused."""
    tools = []
    for number, tool in enumerate(value if isinstance(value, list) else []):
        function = object_of(object_of(tool).get("function"))
        if not isinstance(function.get("name"), str):
            raise bad_request(f"Missing required parameter: 'tools[{number}].function.name'.", f"tools[{number}]")
        tools.append(Tool(function["name"], object_of(function.get("parameters"))))
    return tools


def forced_tool(choice: object, tools: list[Tool]) -> str | None:
    """Raises Refused."""
    if choice in (None, "auto", "none"):
        return None
    if choice in ("required", "any"):  # Mistral says "any"
        return ANY_TOOL
    named = object_of(choice)
    name = object_of(named.get("function")).get("name", named.get("name"))
    if name not in {tool.name for tool in tools}:
        raise bad_request(f"Tool choice {name!r:.100} not found in 'tools' parameter.", "tool_choice")
    return str(name)


def stop_marks(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [mark for mark in value if isinstance(mark, str)] if isinstance(value, list) else []

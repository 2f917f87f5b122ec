"""The Response object of OpenAI's Responses API, as the gateway writes it.

Wire format: https://platform.openai.com/docs/api-reference/responses/object (checked 2026-11-20).
"""

from __future__ import annotations

from typing import Any, Final

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.dialect import Answered, ClientCall
from app.providers.messages import Image, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from app.providers.openai.errors import error_body
from app.providers.openai.responses_input import REDACTED, SIGNED
from app.providers.openai.usage import responses_usage
from app.providers.operations import FinishReason

Item = dict[str, Any]

_INCOMPLETE: Final = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}


class ResponseFrame:
    """All of a Response but its output: what the client asked for comes back in it."""

    ECHOED: Final = (
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    )

    def __init__(self, call: ClientCall, answered: Answered) -> None:
        echo = call.options.get("echo") or {}
        self._fields: dict[str, Any] = {
            "id": f"resp_{answered.request_id}",
            "object": "response",
            "created_at": int(answered.created_at.timestamp()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "metadata": call.metadata,
            "model": answered.model,
            "output": [],
            "previous_response_id": None,
            "store": False,
            "top_logprobs": 0,
            "truncation": "disabled",
            "usage": None,
            **{name: echo.get(name) for name in self.ECHOED},
        }
        for name, default in (
            ("parallel_tool_calls", True),
            ("tool_choice", "auto"),
            ("tools", []),
            ("text", {"format": {"type": "text"}}),
            ("reasoning", {"effort": None, "summary": None}),
        ):
            if self._fields[name] is None:
                self._fields[name] = default

    def begun(self) -> dict[str, Any]:
        return self._fields

    def ended(self, items: list[Item], reason: FinishReason | None, usage: Usage) -> dict[str, Any]:
        why = _INCOMPLETE.get(reason) if reason is not None else None
        return {
            **self._fields,
            "status": "incomplete" if why else "completed",
            "incomplete_details": {"reason": why} if why else None,
            "output": items,
            "usage": responses_usage(usage),
        }

    def failed(self, items: list[Item], error: TollgateError) -> dict[str, Any]:
        """Its code is one of two: the SDK's type has none for other faults."""
        body = error_body(error)
        code = "rate_limit_exceeded" if body["type"] == "rate_limit_error" else "server_error"
        fault = {"code": code, "message": body["message"]}
        return {**self._fields, "status": "failed", "output": items, "error": fault}


def output_items(parts: list[Part], request_id: str) -> list[Item]:
    """Texts and refusals in a row are one message."""
    items: list[Item] = []
    for part in parts:
        item_id = f"{request_id}_{len(items)}"
        match part:
            case Text() | Refusal():
                if not items or items[-1]["type"] != "message":
                    items.append(message_item(item_id, "completed"))
                content = refusal_part(part.text) if isinstance(part, Refusal) else text_part(part.text)
                items[-1]["content"].append(content)
            case Reasoning():
                items.append(reasoning_item(item_id, part))
            case ToolCall():
                items.append(call_item(item_id, part, "completed"))
            case Image():
                items.append({"id": f"ig_{item_id}", "type": "image_generation_call", "status": "completed"})
                items[-1]["result"] = part.data or part.url
            case ToolResult():
                raise AssertionError("an answer holds no result of a tool")
    return items


def message_item(item_id: str, status: str) -> Item:
    return {"id": f"msg_{item_id}", "type": "message", "role": "assistant", "status": status, "content": []}


def text_part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(text: str) -> Item:
    return {"type": "refusal", "refusal": text}


def reasoning_item(item_id: str, thought: Reasoning) -> Item:
    item: Item = {"id": f"rs_{item_id}", "type": "reasoning", "summary": []}
    if thought.text:
        item["summary"].append({"type": "summary_text", "text": thought.text})
    if thought.redacted is not None:
        item["encrypted_content"] = REDACTED + thought.redacted
    elif thought.signature is not None:
        item["encrypted_content"] = SIGNED + thought.signature
    return item


def call_item(item_id: str, call: ToolCall, status: str) -> Item:
    return {
        "id": f"fc_{item_id}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }

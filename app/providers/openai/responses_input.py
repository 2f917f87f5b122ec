"""The input of OpenAI's Responses API as messages.

Wire format: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
(checked 2026-11-20).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from app.errors import ValidationError
from app.providers.messages import Message, Part, Reasoning, Refusal, Role, Text, ToolCall, ToolResult
from app.providers.openai.client_body import image_of, in_field

SIGNED: Final = "signature:"
REDACTED: Final = "redacted:"
"""What `encrypted_content` of a reasoning item begins with, so that it is known again when it comes back."""


class _Content(Struct, forbid_unknown_fields=True):
    """`annotations` and `logprobs` of an answer's text may come back."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class _Item(Struct, forbid_unknown_fields=True):
    """Any item; `type` is left out of messages. What the SDK has of an answer's items may come back."""

    type: str = "message"
    role: str | None = None
    content: str | list[_Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Content] | None = None
    summary: list[_Content] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None
    phase: None = None
    caller: None = None
    namespace: None = None
    async_: None = None


_ROLES: Final = {"user": Role.USER, "system": Role.SYSTEM, "developer": Role.SYSTEM, "assistant": Role.ASSISTANT}


def messages_of(value: Any) -> list[Message]:
    """Items of an assistant in a row are one message, as are the outputs of its calls."""
    if isinstance(value, str):
        return [Message(Role.USER, [Text(value)])]
    messages: list[Message] = []
    for index, item in enumerate(in_field("input", value, list[_Item])):
        role, parts = _read(item, f"input[{index}]")
        if messages and messages[-1].role is role and role in (Role.ASSISTANT, Role.TOOL):
            messages[-1].parts.extend(parts)
        else:
            messages.append(Message(role, parts))
    return messages


def _read(item: _Item, field: str) -> tuple[Role, list[Part]]:
    match item.type:
        case "message":
            role = _ROLES.get(item.role or "")
            if role is None:
                raise ValidationError(f"{field}.role", item.role, "user, assistant, system or developer")
            return role, _content(item.content, role, f"{field}.content")
        case "function_call":
            if item.call_id is None or item.name is None or item.arguments is None:
                raise ValidationError(field, item.type, "given with call_id, name and arguments")
            return Role.ASSISTANT, [ToolCall(item.call_id, item.name, item.arguments)]
        case "function_call_output":
            if item.call_id is None or item.output is None:
                raise ValidationError(field, item.type, "given with call_id and output")
            texts = _content(item.output, Role.TOOL, f"{field}.output")
            text = "".join(part.text for part in texts if isinstance(part, Text))
            return Role.TOOL, [ToolResult(item.call_id, text)]
        case "reasoning":
            return Role.ASSISTANT, [_reasoning(item, field)]
    raise ValidationError(f"{field}.type", item.type, "message, function_call, function_call_output or reasoning")


def _content(content: str | list[_Content] | None, role: Role, field: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    if not content:
        raise ValidationError(field, content, "a text or a list of parts")
    parts: list[Part] = []
    for index, part in enumerate(content):
        where = f"{field}[{index}]"
        if part.type in ("input_text", "output_text", "text") and part.text is not None:
            parts.append(Text(part.text))
        elif part.type == "input_image" and part.image_url is not None and role is Role.USER:
            parts.append(image_of(part.image_url, part.detail, f"{where}.image_url"))
        elif part.type == "refusal" and part.refusal is not None and role is Role.ASSISTANT:
            parts.append(Refusal(part.refusal))
        else:
            raise ValidationError(f"{where}.type", part.type, "a text, or an image by image_url in a user's message")
    return parts


def _reasoning(item: _Item, field: str) -> Reasoning:
    sealed = item.encrypted_content
    if sealed is not None and sealed.startswith(REDACTED):
        return Reasoning(redacted=sealed.removeprefix(REDACTED))
    if sealed is not None and not sealed.startswith(SIGNED):
        raise ValidationError(f"{field}.encrypted_content", sealed, "as the gateway gave it")
    pieces = item.summary or (item.content if isinstance(item.content, list) else None) or []
    text = "".join(piece.text or "" for piece in pieces)
    return Reasoning(text, signature=None if sealed is None else sealed.removeprefix(SIGNED))

"""From what a caller submits to the request that the model's kind takes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.db.rows import LlmModelType
from app.errors import ValidationError
from app.providers.messages import Message, Role, Text, ToolResult
from app.providers.operations import (
    ChatRequest,
    EmbeddingRequest,
    ImageRequest,
    ModerationRequest,
    Operation,
    OperationRequest,
    RerankRequest,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from app.requests.records import SubmitRequest

OPERATION_OF_TYPE: Final[dict[LlmModelType, Operation]] = {
    LlmModelType.TEXT: Operation.CHAT,
    LlmModelType.CODE: Operation.CHAT,
    LlmModelType.EMBEDDING: Operation.EMBEDDING,
    LlmModelType.RERANK: Operation.RERANK,
    LlmModelType.IMAGE: Operation.IMAGE,
    LlmModelType.VIDEO: Operation.VIDEO,
    LlmModelType.SPEECH_TO_TEXT: Operation.TRANSCRIPTION,
    LlmModelType.TEXT_TO_SPEECH: Operation.SPEECH,
    LlmModelType.MODERATION: Operation.MODERATION,
}
ROLES: Final = tuple(role.value for role in Role)

_OBJECT_INPUTS: Final[dict[LlmModelType, type[Any]]] = {
    LlmModelType.TEXT: ChatRequest,
    LlmModelType.EMBEDDING: EmbeddingRequest,
    LlmModelType.RERANK: RerankRequest,
    LlmModelType.IMAGE: ImageRequest,
    LlmModelType.VIDEO: VideoRequest,
    LlmModelType.SPEECH_TO_TEXT: TranscriptionRequest,
    LlmModelType.TEXT_TO_SPEECH: SpeechRequest,
    LlmModelType.MODERATION: ModerationRequest,
}
_SHAPES: Final[dict[LlmModelType, str]] = {
    LlmModelType.TEXT: "a text, or {messages: [{role, parts: [...]}], tools, tool_choice, response_format}",
    LlmModelType.EMBEDDING: "a text, a list of texts, or {inputs: [...]}",
    LlmModelType.RERANK: "{query: ..., documents: [...]}",
    LlmModelType.IMAGE: "a prompt, or {prompt: ...}",
    LlmModelType.VIDEO: "a prompt, or {prompt: ..., image: {url}, or {data: <base64>, media_type}}",
    LlmModelType.SPEECH_TO_TEXT: "{audio: <base64>, filename: ...}",
    LlmModelType.TEXT_TO_SPEECH: "{text: ..., voice: ...}",
    LlmModelType.MODERATION: "a text, or a list of texts",
}


def operation_request(submission: SubmitRequest, model_type: LlmModelType) -> OperationRequest:
    """Raises ValidationError where neither or both of messages and input are given, or the kind takes another shape."""
    if submission.request is not None:
        return submission.request
    if (submission.messages is None) == (submission.input is None):
        given = "both" if submission.messages is not None else "neither"
        raise ValidationError("messages", given, "given, or else input, and not both")
    if OPERATION_OF_TYPE[model_type] is Operation.CHAT:
        return _chat(submission)
    if submission.messages is not None:
        raise ValidationError("messages", "given", f"left out for a {model_type} model: it takes input")
    return _other(submission.input, model_type)


def _chat(submission: SubmitRequest) -> ChatRequest:
    if submission.messages is None:
        if isinstance(submission.input, str):
            return ChatRequest([Message(Role.USER, [Text(submission.input)])])
        request = _converted(submission.input, LlmModelType.TEXT)
        assert isinstance(request, ChatRequest)
        if not request.messages:
            raise ValidationError("input.messages", [], "at least one message")
        return request
    if not submission.messages:
        raise ValidationError("messages", [], "at least one message")
    return ChatRequest([_message(index, message) for index, message in enumerate(submission.messages)])


def _message(index: int, message: dict[str, Any]) -> Message:
    if message.get("role") not in ROLES:
        raise ValidationError(f"messages[{index}].role", message.get("role"), f"one of {', '.join(ROLES)}")
    content = message.get("content")
    if not isinstance(content, str):
        raise ValidationError(f"messages[{index}].content", content, "a string")
    role = Role(message["role"])
    if role is Role.TOOL:
        return Message(role, [ToolResult(str(message.get("tool_call_id", "")), content)])
    return Message(role, [Text(content)])


def _other(value: Any, model_type: LlmModelType) -> OperationRequest:
    if model_type is LlmModelType.EMBEDDING and isinstance(value, (str, list)):
        value = {"inputs": [value] if isinstance(value, str) else value}
    elif model_type in (LlmModelType.IMAGE, LlmModelType.VIDEO) and isinstance(value, str):
        value = {"prompt": value}
    elif model_type is LlmModelType.MODERATION and isinstance(value, (str, list)):
        texts = [value] if isinstance(value, str) else value
        value = {"inputs": [{"type": "text", "text": text} if isinstance(text, str) else text for text in texts]}
    return _converted(value, model_type)


def _converted(value: Any, model_type: LlmModelType) -> OperationRequest:
    """From an object in our own form. Raises ValidationError, also where a part of it would be lost."""
    shape = _SHAPES[model_type]
    if not isinstance(value, dict):
        raise ValidationError("input", value, shape)
    kind = _OBJECT_INPUTS[model_type]
    unknown = sorted(set(value) - set(kind.__struct_fields__) - {"operation"})
    if unknown:
        raise ValidationError(f"input.{unknown[0]}", value[unknown[0]], f"left out: {model_type} takes {shape}")
    try:
        request: OperationRequest = msgspec.convert({**value, "operation": OPERATION_OF_TYPE[model_type].value}, kind)
    except msgspec.ValidationError as error:
        raise ValidationError("input", value, f"{shape} ({error})") from None
    if (lost := _lost(value, msgspec.to_builtins(request), "input")) is not None:
        raise ValidationError(lost, "given", f"left out: {model_type} takes {shape}")
    return request


def _lost(given: Any, kept: Any, path: str) -> str | None:
    """The path of something given that is not kept; a default may be left out of what is kept."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, item in given.items():
            where = f"{path}.{name}"
            if name not in kept:
                if item not in (None, False, "", [], {}) and name != "operation":
                    return where
            elif (lost := _lost(item, kept[name], where)) is not None:
                return lost
    elif isinstance(given, list) and isinstance(kept, list):
        for index, (item, kept_item) in enumerate(zip(given, kept, strict=False)):
            if (lost := _lost(item, kept_item, f"{path}[{index}]")) is not None:
                return lost
    return None

"""How many tokens a request may take: what its start reserves from tokensPerMinute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.providers.messages import Image, Message, Reasoning, Refusal, Text, ToolCall, ToolResult
from app.providers.operations import (
    ChatRequest,
    EmbeddingRequest,
    ImageRequest,
    ModerationRequest,
    OperationRequest,
    RerankRequest,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
    encode,
)

_BYTES_PER_TOKEN: Final = 2
"""Prose has about four UTF-8 bytes to a token, code three, digits and rare scripts fewer; two errs on the safe side."""
_TOKENS_PER_MESSAGE: Final = 8
"""Roles and separators around each message, and the priming of the answer."""
_TOKENS_PER_IMAGE: Final = 3000
"""More than the field's models take for one image in high detail."""


def estimate_input_tokens(request: OperationRequest, parameters: Mapping[str, Any] | None = None) -> int:
    """An upper estimate. Parameters that are no plain values are a part of the prompt."""
    schemas = sum(_tokens_of(value) for value in (parameters or {}).values() if isinstance(value, (dict, list)))
    match request:
        case ChatRequest():
            tokens = sum(map(_tokens_of_message, request.messages))
            if request.tools or request.response_format is not None:
                bare = ChatRequest([], request.tools, request.tool_choice, request.response_format)
                tokens += -(-len(encode(bare)) // _BYTES_PER_TOKEN)
        case EmbeddingRequest():
            tokens = sum(_tokens_of(item) if isinstance(item, str) else len(item) for item in request.inputs)
        case RerankRequest():
            query = _tokens_of(request.query)
            tokens = sum(_tokens_of(document) + query for document in request.documents)
        case ImageRequest() | VideoRequest():
            tokens = _tokens_of(request.prompt)
        case SpeechRequest():
            tokens = _tokens_of(request.text)
        case TranscriptionRequest():
            # A minute of speech at 32 kbit/s is 240 kB and some 200 tokens.
            tokens = len(request.audio) // 1000
        case ModerationRequest():
            tokens = sum(map(_tokens_of_part, request.inputs))
    return schemas + tokens + _TOKENS_PER_MESSAGE


def max_output_tokens(
    request: OperationRequest, parameters: Mapping[str, Any], model_maximum: int | None, default: int
) -> int:
    """What the caller allows, else what the model can, else `default`, times the number of answers asked for.

    Zero where the answer is no text.
    """
    if isinstance(request, (EmbeddingRequest, RerankRequest, ModerationRequest, SpeechRequest, VideoRequest)):
        return 0
    allowed = parameters.get("max_tokens")
    if allowed is None:
        allowed = parameters.get("max_completion_tokens")
    if allowed is None:
        allowed = model_maximum if model_maximum is not None else default
    answers = parameters.get("n")
    return int(allowed) * (answers if isinstance(answers, int) and answers > 0 else 1)


def _tokens_of_message(message: Message) -> int:
    tokens = _TOKENS_PER_MESSAGE if message.name is None else _TOKENS_PER_MESSAGE + _tokens_of(message.name)
    for part in message.parts:
        tokens += _tokens_of(part.text) if isinstance(part, Text) else _tokens_of_part(part)
    return tokens


def _tokens_of_part(part: Text | Image | ToolCall | ToolResult | Reasoning | Refusal) -> int:
    match part:
        case Text() | Refusal():
            return _tokens_of(part.text)
        case Image():
            return _TOKENS_PER_IMAGE
        case ToolCall():
            return _tokens_of(part.name) + _tokens_of(part.arguments) + _TOKENS_PER_MESSAGE
        case ToolResult():
            return _tokens_of(part.content) + _TOKENS_PER_MESSAGE
        case Reasoning():
            return _tokens_of(part.text) + _tokens_of(part.redacted or "")


def _tokens_of(content: Any) -> int:
    size = len(content.encode()) if isinstance(content, str) else len(orjson.dumps(content))
    return -(-size // _BYTES_PER_TOKEN)

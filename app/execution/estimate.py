"""What a call probably used, where the provider did not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from app.prices.records import Usage
from app.providers.messages import Image, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from app.providers.operations import (
    ChatOutput,
    ChatRequest,
    EmbeddingRequest,
    ImageOutput,
    ImageRequest,
    ModerationRequest,
    OperationOutput,
    OperationRequest,
    RerankRequest,
    SpeechRequest,
    TranscriptionOutput,
    TranscriptionRequest,
    VideoOutput,
    VideoRequest,
)
from app.providers.video import video_seconds

_BYTES_PER_TOKEN: Final = 4
"""What prose comes to, for an estimate that is neither high nor low."""
_TOKENS_PER_IMAGE: Final = 765
"""Of 1024 by 1024 in high detail (https://platform.openai.com/docs/guides/images-vision, 2026-11-20)."""


def estimate_usage(
    request: OperationRequest, output: OperationOutput, parameters: Mapping[str, Any] | None = None
) -> Usage:
    """Flagged as an estimate. Never zero for an answer that has something in it."""
    match request:
        case ChatRequest():
            parts = [part for message in request.messages for part in message.parts]
            tools = json.dumps([tool.parameters for tool in request.tools]) if request.tools else ""
            answered = (
                [part for choice in output.choices for part in choice.parts] if isinstance(output, ChatOutput) else []
            )
            return Usage(
                input_tokens=max(1, sum(map(_tokens_of, parts)) + _tokens(tools)),
                output_tokens=sum(map(_tokens_of, answered)),
                estimated=True,
            )
        case EmbeddingRequest():
            counts = (_tokens(item) if isinstance(item, str) else len(item) for item in request.inputs)
            return Usage(input_tokens=max(1, sum(counts)), estimated=True)
        case RerankRequest():
            # A search is a query with up to 100 documents, as Cohere bills it.
            return Usage(searches=max(1, -(-len(request.documents) // 100)), estimated=True)
        case ImageRequest():
            return Usage(images=len(output.images) if isinstance(output, ImageOutput) else 1, estimated=True)
        case SpeechRequest():
            return Usage(characters=len(request.text), estimated=True)
        case TranscriptionRequest():
            seconds = output.duration_seconds if isinstance(output, TranscriptionOutput) else None
            return Usage(seconds=seconds or Decimal(max(1, len(request.audio) // 4000)), estimated=True)
        case ModerationRequest():
            return Usage(input_tokens=max(1, sum(map(_tokens_of, request.inputs))), estimated=True)
        case VideoRequest():
            seconds = output.seconds if isinstance(output, VideoOutput) else None
            return Usage(seconds=seconds or video_seconds(parameters or {}), estimated=True)


def _tokens_of(part: Part) -> int:
    match part:
        case Text() | Refusal() | Reasoning():
            return _tokens(part.text)
        case Image():
            return _TOKENS_PER_IMAGE
        case ToolCall():
            return _tokens(part.name) + _tokens(part.arguments)
        case ToolResult():
            return _tokens(part.content)


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)

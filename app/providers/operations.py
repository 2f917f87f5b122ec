"""What can be asked of a model, and what comes back: one request, one response and, for chat, one chunk type.

The JSON of a request (`encode_request`) is the `payload` of a ModelRequest; the JSON of a response is its `output`.
Parameters such as temperature travel beside it, under OpenAI's names, `max_tokens` for the maximum output.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.prices.records import Usage
from app.providers.messages import Image, Message, Part, ResponseFormat, Text, Tool, ToolCall, ToolChoice


class Operation(StrEnum):
    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    IMAGE = "image"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    MODERATION = "moderation"
    VIDEO = "video"


# --- requests ------------------------------------------------------------------------------------------------------


class ChatRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="chat"):
    messages: list[Message]
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None


class EmbeddingRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="embedding"):
    """An input is a text, or a list of token ids."""

    inputs: list[str | list[int]]


class RerankRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="rerank"):
    query: str
    documents: list[str]


class ImageRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="image"):
    prompt: str


class SpeechRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="speech"):
    text: str
    voice: str


class TranscriptionRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="transcription"):
    """`audio` is base64 in JSON."""

    audio: bytes
    filename: str = "audio.wav"
    media_type: str = "application/octet-stream"


class ModerationRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="moderation"):
    """`inputs` are texts or images."""

    inputs: list[Part]


class VideoRequest(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="video"):
    """`image` is what the video begins with."""

    prompt: str
    image: Image | None = None


OperationRequest = (
    ChatRequest
    | EmbeddingRequest
    | RerankRequest
    | ImageRequest
    | SpeechRequest
    | TranscriptionRequest
    | ModerationRequest
    | VideoRequest
)

OPERATION_OF: Final[dict[type[Any], Operation]] = {
    ChatRequest: Operation.CHAT,
    EmbeddingRequest: Operation.EMBEDDING,
    RerankRequest: Operation.RERANK,
    ImageRequest: Operation.IMAGE,
    SpeechRequest: Operation.SPEECH,
    TranscriptionRequest: Operation.TRANSCRIPTION,
    ModerationRequest: Operation.MODERATION,
    VideoRequest: Operation.VIDEO,
}

# --- responses -----------------------------------------------------------------------------------------------------


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class Choice(Struct, frozen=True, omit_defaults=True):
    """`logprobs` as OpenAI writes them."""

    parts: list[Part]
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: Any = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]


class ChatOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="chat"):
    choices: list[Choice]


class EmbeddingOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="embedding"):
    """A vector per input, in order."""

    vectors: list[list[float]]


class RankedDocument(Struct, frozen=True):
    """`index` is the document's place in the request."""

    index: int
    score: float


class RerankOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="rerank"):
    """Best first."""

    results: list[RankedDocument]


class GeneratedImage(Struct, frozen=True, omit_defaults=True):
    url: str | None = None
    data: str | None = None  # base64
    revised_prompt: str | None = None


class ImageOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="image"):
    images: list[GeneratedImage]
    media_type: str | None = None


class SpeechOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="speech"):
    """`audio` is base64 in JSON."""

    audio: bytes
    media_type: str


class TranscriptionOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="transcription"):
    """`duration_seconds` of the audio. `segments` and `words` as OpenAI's verbose_json has them."""

    text: str
    language: str | None = None
    duration_seconds: Decimal | None = None
    segments: list[dict[str, Any]] | None = None
    words: list[dict[str, Any]] | None = None


class ModerationResult(Struct, frozen=True):
    flagged: bool
    categories: dict[str, bool]
    scores: dict[str, float]


class ModerationOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="moderation"):
    """A result per input."""

    results: list[ModerationResult]


class VideoOutput(Struct, frozen=True, omit_defaults=True, tag_field="operation", tag="video"):
    """The video itself as base64 `data`, or the `url` of the provider that keeps it for a while.

    `needs_credential`: the URL answers only to the provider's own key.
    """

    id: str
    seconds: Decimal | None = None
    url: str | None = None
    needs_credential: bool = False
    data: str | None = None
    media_type: str = "video/mp4"


OperationOutput = (
    ChatOutput
    | EmbeddingOutput
    | RerankOutput
    | ImageOutput
    | SpeechOutput
    | TranscriptionOutput
    | ModerationOutput
    | VideoOutput
)

# --- chunks of a streamed chat answer ---------------------------------------------------------------------------------


class TextDelta(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="text"):
    text: str
    choice: int = 0


class ReasoningDelta(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    """`signature` comes with the last delta of a thought."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    choice: int = 0


class RefusalDelta(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="refusal"):
    text: str
    choice: int = 0


class ToolCallDelta(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool_call"):
    """The first delta of the call at `index` has `id` and `name`; `arguments` are appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    choice: int = 0


class Finished(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="finished"):
    """A choice has ended."""

    finish_reason: FinishReason
    choice: int = 0


class StreamStarted(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="started"):
    """What the provider says first of itself."""

    response_model: str | None = None
    response_id: str | None = None


class StreamUsage(Struct, frozen=True, tag_field="type", tag="usage"):
    usage: Usage


Chunk = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finished | StreamStarted | StreamUsage

# --- JSON ---------------------------------------------------------------------------------------------------------

_encoder: Final = msgspec.json.Encoder()


def encode(value: OperationRequest | OperationOutput | Chunk) -> bytes:
    return _encoder.encode(value)


def request_from_json(value: Any) -> OperationRequest:
    """From parsed JSON, as a row's `payload`. Raises msgspec.ValidationError."""
    request: OperationRequest = msgspec.convert(value, OperationRequest)
    return request


def output_from_json(value: Any) -> OperationOutput:
    """From parsed JSON, as a row's `output`. Raises msgspec.ValidationError."""
    output: OperationOutput = msgspec.convert(value, OperationOutput)
    return output


def chunk_from_json(value: Any) -> Chunk:
    """From parsed JSON. Raises msgspec.ValidationError."""
    chunk: Chunk = msgspec.convert(value, Chunk)
    return chunk

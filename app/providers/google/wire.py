"""The JSON that Google's servers write: generated content, embeddings and errors."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from app.prices.records import Usage
from app.providers.wire import Count


class FunctionCall(Struct, frozen=True):
    name: str
    id: str | None = None
    args: dict[str, Any] | None = None


class InlineData(Struct, frozen=True, rename="camel"):
    data: str
    mime_type: str | None = None


class Part(Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: InlineData | None = None


class Content(Struct, frozen=True):
    parts: list[Part] = []


class Candidate(Struct, frozen=True, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: Count = 0


class PromptFeedback(Struct, frozen=True, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class UsageMetadata(Struct, frozen=True, rename="camel"):
    """`promptTokenCount` includes cached ones; thoughts are not in `candidatesTokenCount`."""

    prompt_token_count: Count | None = None
    tool_use_prompt_token_count: Count = 0
    candidates_token_count: Count = 0
    thoughts_token_count: Count = 0
    cached_content_token_count: Count = 0

    def usage(self, *, is_final: bool = True, images: int = 0) -> Usage | None:
        if self.prompt_token_count is None:
            return None
        input_tokens = self.prompt_token_count + self.tool_use_prompt_token_count
        return Usage(
            input_tokens=input_tokens,
            output_tokens=self.candidates_token_count + self.thoughts_token_count,
            cache_read_tokens=min(self.cached_content_token_count, input_tokens),
            reasoning_tokens=self.thoughts_token_count,
            images=images,
            estimated=not is_final,
        )


class GeneratedContent(Struct, frozen=True, rename="camel"):
    candidates: list[Candidate] = []
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None


class Embedding(Struct, frozen=True):
    values: list[float]


class Embeddings(Struct, frozen=True, rename="camel"):
    embeddings: list[Embedding]
    usage_metadata: UsageMetadata | None = None


class Prediction(Struct, frozen=True, rename="camel"):
    bytes_base64_encoded: str | None = None
    mime_type: str | None = None
    prompt: str | None = None


class Predictions(Struct, frozen=True):
    predictions: list[Prediction] = []


class Video(Struct, frozen=True):
    """Its URI answers to the API key."""

    uri: str


class GeneratedSample(Struct, frozen=True):
    video: Video


class GeneratedVideos(Struct, frozen=True, rename="camel"):
    generated_samples: list[GeneratedSample] = []
    rai_media_filtered_count: Count = 0
    rai_media_filtered_reasons: list[str] = []


class OperationResponse(Struct, frozen=True, rename="camel"):
    generate_video_response: GeneratedVideos | None = None


class OperationError(Struct, frozen=True):
    """google.rpc.Status: `code` is its own, and not one of HTTP."""

    code: int = 0
    message: str = ""


class Operation(Struct, frozen=True):
    name: str = ""
    done: bool = False
    error: OperationError | None = None
    response: OperationResponse | None = None


class ErrorDetail(Struct, frozen=True):
    code: int | None = None
    message: str = ""
    status: str = ""
    details: list[dict[str, Any]] = []


class ErrorBody(Struct, frozen=True):
    error: ErrorDetail


class ChunkOrError(GeneratedContent, frozen=True, rename="camel"):
    error: ErrorDetail | None = None


content_decoder: Final = msgspec.json.Decoder(GeneratedContent)
chunk_decoder: Final = msgspec.json.Decoder(ChunkOrError)
embeddings_decoder: Final = msgspec.json.Decoder(Embeddings)
predictions_decoder: Final = msgspec.json.Decoder(Predictions)
operation_decoder: Final = msgspec.json.Decoder(Operation)
error_decoder: Final[msgspec.json.Decoder[ErrorBody | list[ErrorBody]]] = msgspec.json.Decoder(
    ErrorBody | list[ErrorBody]
)

"""Calls Google's Gemini API: generateContent, batchEmbedContents, Imagen's predict, and Veo's predictLongRunning.

https://ai.google.dev/api/generate-content and .../api/embeddings (2026-11-20)

The parameters of an embedding: dimensions is outputDimensionality, task_type is taskType (Google's own).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec
from pydantic import SecretStr

from app.errors import InvalidResponse
from app.providers.adapter import ModelCall, ModelResponse, Unfinished, WireRequest, WireResponse
from app.providers.google import videos, wire
from app.providers.google.answer import ContentStream, parse_content
from app.providers.google.errors import error_of
from app.providers.google.images import parse_images, render_image
from app.providers.google.render import render_chat
from app.providers.operations import (
    ChatRequest,
    EmbeddingOutput,
    EmbeddingRequest,
    ImageRequest,
    Operation,
    VideoRequest,
)
from app.providers.wire import Parameters, decode_answer, refused


class GoogleAdapter:
    """The base URL includes the version: "https://generativelanguage.googleapis.com/v1beta"."""

    name: Final = "google"
    default_base_url: Final = "https://generativelanguage.googleapis.com/v1beta"
    operations: Final = frozenset({Operation.CHAT, Operation.EMBEDDING, Operation.IMAGE, Operation.VIDEO})

    def render(self, call: ModelCall) -> WireRequest:
        match call.request:
            case ChatRequest():
                method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
                body = render_chat(call, call.request)
            case EmbeddingRequest():
                method, body = "batchEmbedContents", _embeddings(call, call.request)
            case ImageRequest():
                method, body = render_image(call, call.request)
            case VideoRequest():
                method, body = videos.METHOD, videos.render_video(call, call.request)
            case _:
                raise refused("operation", f"{type(call.request).__name__} is not one of Google's protocol")
        return WireRequest(
            url=f"{call.base_url.rstrip('/')}/{quote(_resource(call.model_id))}:{method}",
            headers={
                **_authorization(call.credential),
                "content-type": "application/json",
                "accept": "text/event-stream" if call.stream else "application/json",
                "x-request-id": call.request_id,
            },
            body=msgspec.json.encode(body),
        )

    def file_request(self, url: str, credential: SecretStr) -> WireRequest:
        return WireRequest(url, _authorization(credential), b"", method="GET")

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
        if not 200 <= response.status < 300:
            raise error_of(response)
        match call.request:
            case EmbeddingRequest(inputs=inputs):
                return _parse_embeddings(response, len(inputs))
            case ImageRequest():
                return parse_images(call, response)
            case VideoRequest():
                headers = {**_authorization(call.credential), "x-request-id": call.request_id}
                return videos.parse_video(call, response, headers)
            case _:
                return parse_content(response, call.request_id)

    def stream_reader(self, call: ModelCall) -> ContentStream:
        return ContentStream(call.request_id)


def _authorization(credential: SecretStr) -> dict[str, str]:
    return {"x-goog-api-key": credential.get_secret_value()}


def _resource(model_id: str) -> str:
    """ "models/..." unless it is one of another collection, such as "tunedModels/..."."""
    return model_id if "/" in model_id else f"models/{model_id}"


def _embeddings(call: ModelCall, request: EmbeddingRequest) -> dict[str, Any]:
    parameters = Parameters(call, "Google's batchEmbedContents")
    # How the vectors are written to a client is the gateway's own matter.
    parameters.take_choice("encoding_format", {"float": "float", "base64": "base64"})
    parameters.refuse_all({"user": None})
    shared: dict[str, Any] = {"model": _resource(call.model_id)}
    parameters.copy({"dimensions": "outputDimensionality", "task_type": "taskType"}, shared)
    shared.update(parameters.rest())
    requests = []
    for number, text in enumerate(request.inputs):
        if not isinstance(text, str):
            raise refused(f"inputs[{number}]", "must be a text: Google's models take no token ids")
        requests.append({**shared, "content": {"parts": [{"text": text}]}})
    return {"requests": requests}


def _parse_embeddings(response: WireResponse, expected: int) -> ModelResponse:
    body = decode_answer(wire.embeddings_decoder, response.body, status=response.status)
    if len(body.embeddings) != expected:
        raise InvalidResponse(
            f"the provider's answer cannot be used: {len(body.embeddings)} vectors for {expected} inputs",
            http_status=response.status,
        )
    usage = body.usage_metadata.usage() if body.usage_metadata else None
    return ModelResponse(output=EmbeddingOutput([embedding.values for embedding in body.embeddings]), usage=usage)

"""OpenAI's image generation, both ways.

Wire format: https://platform.openai.com/docs/api-reference/images (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall
from app.providers.openai.client_body import parameters_of, take_metadata, take_text
from app.providers.openai.dialect import WholeAnswers, refuse_streaming
from app.providers.openai.usage import read_responses_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import GeneratedImage, ImageOutput, ImageRequest

_encode: Final = msgspec.json.Encoder().encode
_PARAMETERS: Final = frozenset(
    {
        "background",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "quality",
        "response_format",
        "safety_identifier",
        "size",
        "style",
        "user",
    }
)
_RESERVED: Final = frozenset({"model", "partial_images", "prompt", "stream"})
_MEDIA_TYPES: Final = {"svg": "image/svg+xml", "jpg": "image/jpeg"}


def render_image(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, ImageRequest)
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "image generation")
    if not request.prompt:
        raise InvalidRequest("prompt must not be empty")
    body["model"] = call.model_id
    body["prompt"] = request.prompt
    return json_request(call, "/images/generations", body)


class _Image(Struct):
    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class _Answer(Struct):
    data: list[_Image]
    id: str | None = None
    output_format: str | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def parse_image(call: ModelCall, response: WireResponse) -> ModelResponse:
    body = read_json(response, _decode, _Answer)
    if not body.data or not all(image.url or image.b64_json for image in body.data):
        raise invalid_answer("it has no images", response)
    provider_request_id = response.headers.get("x-request-id")
    wanted = body.output_format or call.parameters.get("output_format")
    # Only the gpt-image models count tokens; the images themselves are always there to be counted.
    usage = read_responses_usage(body.usage, provider_request_id) or Usage()
    return ModelResponse(
        output=ImageOutput(
            [GeneratedImage(image.url, image.b64_json, image.revised_prompt) for image in body.data],
            media_type=_MEDIA_TYPES.get(wanted, f"image/{wanted}") if isinstance(wanted, str) else None,
        ),
        usage=replace(usage, images=len(body.data)),
        response_id=body.id,
        provider_request_id=provider_request_id,
    )


class OpenAIImagesDialect(WholeAnswers):
    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        model = take_text(fields, "model")
        refuse_streaming(fields)
        if fields.get("partial_images") == 0:
            del fields["partial_images"]
        prompt = take_text(fields, "prompt")
        metadata = take_metadata(fields)
        return ClientCall(model, ImageRequest(prompt), parameters_of(fields), metadata=metadata)

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, ImageOutput)
        body: dict[str, Any] = {
            "created": int(answered.created_at.timestamp()),
            "data": [
                {"url": image.url, "b64_json": image.data, "revised_prompt": image.revised_prompt}
                for image in output.images
            ],
        }
        if output.media_type is not None:
            body["output_format"] = output.media_type.removeprefix("image/").removesuffix("+xml")
        if usage.total_tokens:
            body["usage"] = {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"text_tokens": usage.input_tokens, "image_tokens": 0},
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
            }
        return _encode(body), "application/json"

"""Images: of Imagen's models by predict, of Gemini's as generated content.

https://ai.google.dev/gemini-api/docs/imagen and .../gemini-api/docs/image-generation (2026-11-20)

ours            | Imagen's        | Gemini's
----------------|-----------------|---------------------------
n               | sampleCount     | refused above 1
aspect_ratio    | aspectRatio     | imageConfig.aspectRatio (Google's own)
size, quality, style, user, background, a response_format of url | refused
"""

from __future__ import annotations

from typing import Any, Final

from app.errors import InvalidResponse
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireResponse
from app.providers.google import wire
from app.providers.operations import GeneratedImage, ImageOutput, ImageRequest
from app.providers.wire import Parameters, decode_answer

_REFUSED: Final[dict[str, Any]] = {
    "size": "auto",
    "quality": "auto",
    "style": None,
    "background": "auto",
    "user": None,
    "response_format": "b64_json",
}


def render_image(call: ModelCall, request: ImageRequest) -> tuple[str, dict[str, Any]]:
    """The method and its body."""
    parameters = Parameters(call, "Google's image generation")
    parameters.refuse_all(_REFUSED)
    wanted: dict[str, Any] = {}
    parameters.copy({"aspect_ratio": "aspectRatio"}, wanted)
    if _is_imagen(call):
        parameters.copy({"n": "sampleCount"}, wanted)
        return "predict", {**parameters.rest(), "instances": [{"prompt": request.prompt}], "parameters": wanted}
    parameters.refuse_all({"n": 1})
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    if wanted:
        config["imageConfig"] = wanted
    contents = [{"role": "user", "parts": [{"text": request.prompt}]}]
    return "generateContent", {**parameters.rest(), "contents": contents, "generationConfig": config}


def parse_images(call: ModelCall, response: WireResponse) -> ModelResponse:
    if _is_imagen(call):
        return _parse_predictions(response)
    body = decode_answer(wire.content_decoder, response.body, status=response.status)
    parts = [part for candidate in body.candidates if candidate.content for part in candidate.content.parts]
    found = [part.inline_data for part in parts if part.inline_data is not None]
    if not found:
        feedback = body.prompt_feedback
        reasons = [candidate.finish_reason for candidate in body.candidates if candidate.finish_reason]
        raise _no_image(response, (feedback.block_reason if feedback else None) or ", ".join(reasons))
    usage = body.usage_metadata.usage(images=len(found)) if body.usage_metadata else None
    return ModelResponse(
        output=ImageOutput([GeneratedImage(data=image.data) for image in found], media_type=found[0].mime_type),
        usage=usage or Usage(images=len(found)),
        response_model=body.model_version,
        response_id=body.response_id,
    )


def _parse_predictions(response: WireResponse) -> ModelResponse:
    body = decode_answer(wire.predictions_decoder, response.body, status=response.status)
    found = [prediction for prediction in body.predictions if prediction.bytes_base64_encoded]
    if not found:
        raise _no_image(response, "")
    images = [GeneratedImage(data=image.bytes_base64_encoded, revised_prompt=image.prompt) for image in found]
    return ModelResponse(
        output=ImageOutput(images=images, media_type=found[0].mime_type), usage=Usage(images=len(images))
    )


def _is_imagen(call: ModelCall) -> bool:
    return call.model_id.removeprefix("models/").startswith("imagen")


def _no_image(response: WireResponse, reason: str) -> InvalidResponse:
    why = f" ({reason})" if reason else ""
    return InvalidResponse(
        f"the provider's answer cannot be used: it has no image{why}"[:500], http_status=response.status
    )
